"""Which files of Git LFS a base gets: those that its own .lfsconfig does not leave out, as far as the limits reach."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.bases.lfs_files import LfsFile
from services.git.gitcmd import Command, Git, Invocation, OutputTooLarge
from services.git.pointers import Pointer

_INCLUDE: Final = b"lfs.fetchinclude"
_EXCLUDE: Final = b"lfs.fetchexclude"
_CONFIG_BYTES: Final = 64 << 10
_LISTING_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class LfsLimits:
    """How many files of one base are filled in at most, and how many bytes they may have together (0: none at all)."""

    files: int = 10_000
    bytes: int = 4 << 30


def choose(
    files: Iterable[LfsFile], limits: LfsLimits, before: Collection[Pointer] = ()
) -> tuple[dict[Pointer, str], set[Pointer]]:
    """Return why the limits refuse contents, and those that they do not refuse: the small ones come first.

    Those `before` count too: they were chosen for the same base. One pointer that claims more than there
    can be takes nothing from the others.
    """
    usual = {file.pointer for file in files if file.is_usual}
    # Git would find it changed: an empty file is its own pointer.
    refused = {pointer: "its content is empty" for pointer in usual if not pointer.size}
    wanted: set[Pointer] = set()
    left = limits.bytes - sum(pointer.size for pointer in before)
    for pointer in sorted(usual - refused.keys(), key=lambda each: (each.size, each.oid)):
        if pointer.size > left:
            limit = f"{limits.bytes >> 20} MiB"
            refused[pointer] = f"all together have more than {limit} (BOATYARD_GIT_LFS_MAX_BYTES)"
        elif len(before) + len(wanted) >= limits.files:
            refused[pointer] = f"more than {limits.files} files are not fetched"
        else:
            left -= pointer.size
            wanted.add(pointer)
    return refused, wanted


async def left_out(git: Git, git_dir: Path, paths: Collection[bytes], scratch: Path) -> dict[bytes, str]:
    """Return why the .lfsconfig in an index leaves paths out: `lfs.fetchinclude` names them not, `fetchexclude` does.

    It is the one beside the files, as the client of Git LFS reads it: it names no address, and only takes away.
    """
    patterns = await _patterns(git, git_dir)
    reasons: dict[bytes, str] = {}
    if patterns[_INCLUDE] and paths:
        included = await _named(git, git_dir, patterns[_INCLUDE], scratch)
        reasons |= dict.fromkeys(set(paths) - included, "its .lfsconfig does not include it (lfs.fetchinclude)")
    if patterns[_EXCLUDE] and paths:
        excluded = await _named(git, git_dir, patterns[_EXCLUDE], scratch)
        reasons |= dict.fromkeys(excluded.intersection(paths), "its .lfsconfig excludes it (lfs.fetchexclude)")
    return reasons


async def _patterns(git: Git, git_dir: Path) -> dict[bytes, list[bytes]]:
    """Return the patterns of each of the two keys; none if there is no .lfsconfig, or git cannot read it."""
    listing = Command("config", ("--list", "-z", "--blob=:.lfsconfig"))
    inside = Invocation(git_dir=git_dir, expected_codes=(0, 1, 3, 128), output_limit=_CONFIG_BYTES)
    found: dict[bytes, list[bytes]] = {_INCLUDE: [], _EXCLUDE: []}
    try:
        answer = await git.run(listing, inside)
    except OutputTooLarge:
        return found
    for record in answer.stdout.split(b"\0") if not answer.code else ():
        key, _, value = record.partition(b"\n")
        if key in found:  # the last of two values holds, as in git
            found[key] = [each.strip() for each in value.split(b",") if each.strip()]
    return found


async def _named(git: Git, git_dir: Path, patterns: Iterable[bytes], scratch: Path) -> set[bytes]:
    """Return the paths of an index that patterns name, as those of a .gitignore file do: git itself compares them."""
    file = scratch / "patterns"
    file.write_bytes(b"".join(each + b"\n" for each in patterns))
    listing = Command("ls-files", ("-z", "--cached", "--ignored", f"--exclude-from={file}"))
    output = (await git.run(listing, Invocation(git_dir=git_dir, output_limit=_LISTING_BYTES))).stdout
    return set(output.split(b"\0")) - {b""}
