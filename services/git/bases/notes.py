"""What a base lacks of its repository, noted beside it: the content of submodules, and files stored with Git LFS."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.common.caveats import CaveatKind
from services.git.caveats import caveats_from_json, caveats_of, caveats_to_json
from services.git.gitcmd import Command, Git, Invocation
from services.git.model import Caveat

# With more .gitattributes files than this, asking git about every path is faster than reading them.
_MAX_RULES: Final = 20
_LINK: Final = b"160000"


async def take_notes(git: Git, tree: Path) -> tuple[Caveat, ...]:
    """Inspect the index of a tree of ours. `tree` may be a layer, which lacks files that its index lists."""
    inside = Invocation(git_dir=tree / ".git", cwd=tree)
    listing = (await git.run(Command("ls-files", ("-z", "--stage")), inside)).stdout
    records = [record.partition(b"\t") for record in listing.split(b"\0") if record]
    links = [path for facts, _, path in records if facts.startswith(_LINK)]
    rules = [facts.split(b" ")[1] for facts, _, path in records if path.rpartition(b"/")[2] == b".gitattributes"]
    pointers: list[bytes] = []
    if await _mention_lfs(git, inside, rules):
        names = tree.parent / "names"
        names.write_bytes(b"".join(path + b"\0" for _, _, path in records))
        from_list = Invocation(git_dir=tree / ".git", cwd=tree, stdin_file=names, output_limit=256 * 1024 * 1024)
        attributes = (
            await git.run(Command("check-attr", ("-z", "--stdin", "--cached"), ("filter",)), from_list)
        ).stdout
        names.unlink()
        fields = attributes.split(b"\0")
        pointers = [path for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == b"lfs"]
    return caveats_of({CaveatKind.EMPTY_SUBMODULES: links, CaveatKind.LFS_POINTERS: pointers})


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
