"""Finds and reads the files of a working tree that patterns name: in the sandbox, which hands them over as an archive.

Only what is a regular file is opened, by the names that `find` has printed; what the tree says of links, owners and
modes means nothing out here.
"""

import fnmatch
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from services.git.gitcmd import GitFailed
from services.git.model import ArtifactLimits, OmissionReason, WorkingTree
from services.git.worktree.sandboxed import SandboxedGit, TreeView
from services.sandbox.spec import MountAccess

_ANY_PARTS: Final = "**"
MAX_NAME_BYTES: Final = 1024
"""The longest name that is kept."""
# Beside the content of each file: its header, its name if that is long, and what fills its last block.
_ARCHIVE_BYTES_EACH: Final = 8192
_WITHOUT: Final = (b"-mindepth", b"1", b"(", b"-name", b".git", b"-o", b"-path", b"./.boatyard", b")", b"-prune", b"-o")


class Globs:
    """Patterns for paths: `*` and `?` stand for characters of one part, `**` for any parts; all below a path has it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._globs = {pattern: [_part(part) for part in pattern.split("/")] for pattern in patterns}

    def naming(self, path: str) -> list[str]:
        """Return the patterns that name a path, or a directory that it is in."""
        return [pattern for pattern, parts in self._globs.items() if len(parts) in _reached(parts, path)]

    def lead_below(self, path: str) -> bool:
        """True when a pattern may name something below a path."""
        return any(_reached(parts, path) for parts in self._globs.values())


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """What patterns name: the sizes of the files to keep by their paths, and what is not kept, with the reason."""

    sizes: dict[str, int]
    omitted: list[tuple[str, OmissionReason]]


class ArtifactReader:
    """Reads files of working trees that an agent may have written."""

    def __init__(self, git: SandboxedGit, limits: ArtifactLimits) -> None:
        self._git = git
        self._limits = limits

    @property
    def most_bytes(self) -> int:
        """The most that is kept of one tree, together."""
        return self._limits.bytes

    async def find(self, tree: WorkingTree, patterns: Sequence[str], used_bytes: int = 0) -> FoundFiles:
        """Find what the patterns name, and choose what is kept, by name, within what the limits leave.

        Raises:
            GitError: the tree cannot be read, or the patterns name too many files to list.
        """
        if not patterns:
            return FoundFiles({}, [])
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        unreadable = (b"-type", b"d", b"!", b"(", b"-readable", b"-executable", b")", b"-printf", b"! %P\\0")
        named = (b"!", b"-type", b"d", b"(", *_may_name(patterns), b")", b"-printf", b"%y%s %P\\0")
        records = await self._git.find(view, (*_WITHOUT, *unreadable, b"-o", *named))
        return self._chosen(records, patterns, self._limits.bytes - used_bytes)

    async def read(self, tree: WorkingTree, found: FoundFiles, archive: Path) -> None:
        """Write the files to an archive. See `members`.

        Raises:
            GitError: the tree cannot be read, or has grown beyond what was found.
        """
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        most = sum(found.sizes.values()) + (len(found.sizes) + 8) * _ARCHIVE_BYTES_EACH
        await self._git.write_archive(view, map(str.encode, found.sizes), archive, most)

    def _chosen(self, records: list[bytes], patterns: Sequence[str], left: int) -> FoundFiles:
        globs = Globs(patterns)
        found, unmatched = FoundFiles({}, []), set(patterns)
        for record in sorted(records, key=lambda each: each.partition(b" ")[2]):
            facts, _, raw = record.partition(b" ")
            path = raw.decode(errors="surrogateescape")
            if facts == b"!":
                if globs.lead_below(path):
                    found.omitted.append((path, OmissionReason.UNREADABLE))
                continue
            if not (naming := globs.naming(path)):
                continue
            unmatched.difference_update(naming)
            size = int(facts[1:])
            if (reason := self._complaint(facts[:1], raw, size, left, len(found.sizes))) is not None:
                found.omitted.append((path, reason))
                continue
            found.sizes[path] = size
            left -= size
        found.omitted.extend((pattern, OmissionReason.NO_SUCH_FILE) for pattern in sorted(unmatched))
        return found

    def _complaint(self, kind: bytes, path: bytes, size: int, left: int, before: int) -> OmissionReason | None:
        """Return why a file is not kept, with `left` bytes left for it, and `before` files kept before it."""
        if kind != b"f":
            return OmissionReason.NOT_A_FILE
        if len(path) > MAX_NAME_BYTES or path != path.decode(errors="replace").encode():
            return OmissionReason.UNUSABLE_NAME
        if before >= self._limits.files:
            return OmissionReason.TOO_MANY
        return OmissionReason.TOO_LARGE if size > left else None


def members(archive: Path, wanted: Iterable[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the paths and the contents of the wanted files that an archive has, each once.

    Raises:
        GitFailed: it is no archive.
    """
    missing = set(wanted)
    try:
        with tarfile.open(archive, "r:", encoding="utf-8", errors="surrogateescape") as opened:
            for member in opened:
                path = member.name.removeprefix("./")
                content = opened.extractfile(member) if member.isreg() and path in missing else None
                if content is not None:
                    missing.discard(path)
                    yield path, content
    except tarfile.TarError as error:
        raise GitFailed("tar", 0, str(error)) from error


def _part(part: str) -> re.Pattern[str] | None:
    """Compile one part of a pattern; None for any parts. A bracket stands for itself: names have them."""
    return None if part == _ANY_PARTS else re.compile(fnmatch.translate(part.replace("[", "[[]")))


def _reached(parts: Sequence[re.Pattern[str] | None], path: str) -> set[int]:
    """Return how many parts of a pattern a path may have used up; all of them, if it or a directory around it has."""
    reached = _with_skipped(parts, {0})
    for name in path.split("/"):
        if len(parts) in reached:
            break
        reached = _with_skipped(parts, set(_after(parts, reached, name)))
    return reached


def _after(parts: Sequence[re.Pattern[str] | None], reached: Iterable[int], name: str) -> Iterator[int]:
    for index in reached:
        part = parts[index]
        if part is None:
            yield index
        elif part.match(name):
            yield index + 1


def _with_skipped(parts: Sequence[re.Pattern[str] | None], reached: set[int]) -> set[int]:
    for index in sorted(reached):
        following = index
        while following < len(parts) and parts[following] is None:
            following += 1
            reached.add(following)
    return reached


def _may_name(patterns: Iterable[str]) -> Iterator[bytes]:
    """Yield the part of an expression for `find` that is true of what the patterns name, and of some more."""
    either = b""
    for pattern in patterns:
        literal = re.sub(r"([\[\]\\])", r"\\\1", pattern)
        # `find` runs in the locale C, where `?` is a byte.
        path = b"./" + re.sub(r"\*\*/?|\?", "*", literal).encode()
        for each in (path, path.rstrip(b"/") + b"/*"):
            yield from (either, b"-path", each) if either else (b"-path", each)
            either = b"-o"
