"""What a base lacks of its repository, noted beside it: the content of submodules, and files stored with Git LFS.

And what of it is in the way: a `.boatyard` of its own.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.common.caveats import CaveatKind
from services.common.text import lossy
from services.git.bases.found_submodules import Submodule
from services.git.caveats import caveats_from_json, caveats_of, caveats_to_json
from services.git.exclude import OURS
from services.git.gitcmd import Command, Git, Invocation
from services.git.model import Caveat

# With more .gitattributes files than this, asking git about every path is faster than reading them.
_MAX_RULES: Final = 20
_LINK: Final = b"160000"
_NOT_NAMED: Final = "no URL in .gitmodules"
_OF_FILES: Final = frozenset({CaveatKind.LFS_POINTERS})
# All the reasons together are one line.
_SAID: Final = 240
_LEAST_SAID: Final = 40


async def take_notes(
    git: Git, tree: Path, submodules: Collection[Submodule] = (), below: Path | None = None
) -> tuple[Caveat, ...]:
    """Inspect the index of a tree of ours, and those of the `submodules` in it.

    `tree` may be a layer, which lacks files that its index lists; then `below` is the base that has the submodules.
    """
    links, pointers = await _lacking(git, tree / ".git", tree, tree.parent)
    filled = {each.path for each in submodules}
    if below is not None:
        inherited = (path for caveat in read_notes(below) for path in caveat.paths if caveat.kind in _OF_FILES)
        pointers += [path for path in inherited if any(path.startswith(each + b"/") for each in filled)]
    for each in submodules if below is None else ():
        inner = await _lacking(git, tree / ".git" / each.git_dir, tree / each.directory, tree.parent)
        for found, paths in zip((links, pointers), inner, strict=True):
            found += [each.path + b"/" + path for path in paths]
    missing = [path for path in links if path not in filled]
    own = [OURS] if await _is_tracked(git, Invocation(git_dir=tree / ".git", cwd=tree), OURS) else []
    lacking = {CaveatKind.EMPTY_SUBMODULES: missing, CaveatKind.LFS_POINTERS: pointers}
    return caveats_of({**lacking, CaveatKind.OWN_BOATYARD: own})


def with_reasons(notes: Iterable[Caveat], missing: Mapping[bytes, str]) -> tuple[Caveat, ...]:
    """Return notes with the reasons why submodules are missing, by their paths. Most others are in no `.gitmodules`."""
    kept = {each.kind: each for each in notes}
    noted = kept.pop(CaveatKind.EMPTY_SUBMODULES, None)
    reasons = dict.fromkeys(noted.paths if noted else (), _NOT_NAMED) | dict(missing)
    if not reasons:
        return tuple(kept.values())
    room = max(_LEAST_SAID, _SAID // len(reasons))
    said = (f"{lossy(path)}: {why[:room]}" for path, why in sorted(reasons.items()))
    (told,) = caveats_of({CaveatKind.EMPTY_SUBMODULES: reasons}, {CaveatKind.EMPTY_SUBMODULES: "; ".join(said)})
    return (replace(told, total_paths=max(told.total_paths, noted.total_paths if noted else 0)), *kept.values())


def with_pointers(notes: Iterable[Caveat], missing: Mapping[bytes, str]) -> tuple[Caveat, ...]:
    """Return notes in which of the files for Git LFS those are left whose contents could not be had, and why."""
    kept = [each for each in notes if each.kind is not CaveatKind.LFS_POINTERS]
    reasons = "; ".join(dict.fromkeys(missing.values()))
    return (*caveats_of({CaveatKind.LFS_POINTERS: missing}, {CaveatKind.LFS_POINTERS: reasons}), *kept)


async def _lacking(git: Git, git_dir: Path, tree: Path, scratch: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the links in an index, and the paths that `.gitattributes` gives to Git LFS."""
    inside = Invocation(git_dir=git_dir, cwd=tree)
    listing = (await git.run(Command("ls-files", ("-z", "--stage")), inside)).stdout
    records = [record.partition(b"\t") for record in listing.split(b"\0") if record]
    links = [path for facts, _, path in records if facts.startswith(_LINK)]
    rules = [facts.split(b" ")[1] for facts, _, path in records if path.rpartition(b"/")[2] == b".gitattributes"]
    if not await _mention_lfs(git, inside, rules):
        return links, []
    names = scratch / "names"
    names.write_bytes(b"".join(path + b"\0" for _, _, path in records))
    from_list = replace(inside, stdin_file=names, output_limit=256 * 1024 * 1024)
    asking = Command("check-attr", ("-z", "--stdin", "--cached"), ("filter",))
    fields = (await git.run(asking, from_list)).stdout.split(b"\0")
    names.unlink()
    return links, [path for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == b"lfs"]


async def _is_tracked(git: Git, inside: Invocation, path: bytes) -> bool:
    """True when an index has a file at a path, or below it."""
    return bool((await git.run(Command("ls-files", ("-z",), paths=(path,)), inside)).stdout)


def write_notes(directory: Path, caveats: Iterable[Caveat]) -> None:
    """Write what a base lacks beside it, while it is being built."""
    (directory / "notes").write_text(caveats_to_json(caveats))


def read_notes(directory: Path) -> tuple[Caveat, ...]:
    """Return what a base lacks."""
    return caveats_from_json((directory / "notes").read_bytes())


async def _mention_lfs(git: Git, inside: Invocation, rules: list[bytes]) -> bool:
    if len(rules) > _MAX_RULES:
        return True
    for rule in rules:
        if b"lfs" in (await git.run(Command("cat-file", (), ("blob", rule)), inside)).stdout:
            return True
    return False
