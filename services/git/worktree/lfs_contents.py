"""Takes the contents of files for Git LFS out of a result, and puts their pointers in their place.

Git in the sandbox has read the files into objects; out here they are only hashed, and kept by their hashes.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

from services.git.gitcmd import Command, GitFailed
from services.git.pointers import Pointer
from services.git.worktree.changes import IndexEntry
from services.git.worktree.sandboxed import SandboxedGit, TreeView
from services.git.worktree.scratch_repository import ScratchRepository

_CHUNK: Final = 1 << 20
_LONGEST_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class LfsContents:
    """The pointers that a result has and its base does not, and the files with the contents of new ones."""

    pointers: frozenset[Pointer] = frozenset()
    files: Mapping[Pointer, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LfsPlace:
    """Where contents are written: a directory of ours, and one that git in the sandbox sees as its scratch.

    All contents of one result may have `limit` bytes together.
    """

    own: Path
    shared: Path
    limit: int

    async def take(
        self, git: SandboxedGit, view: TreeView, repository: ScratchRepository, entries: Sequence[IndexEntry]
    ) -> dict[Pointer, Path]:
        """Put pointers into the index for entries that are contents; return the files with those.

        Raises:
            GitError: git cannot; OutputTooLarge.
        """
        object_ids = sorted({entry.object_id for entry in entries})
        contents = self.own / "lfs-contents"
        asked = b"".join(object_id + b"\n" for object_id in object_ids)
        printing = Command("cat-file", ("--batch=%(objectsize)",))
        await git.write_output(view, printing, contents, repository.invocation(stdin=asked, output_limit=self.limit))
        kept = self.own / "lfs"
        kept.mkdir()
        try:
            pointers = await asyncio.to_thread(_split, contents, kept, len(object_ids))
        finally:
            await asyncio.to_thread(contents.unlink)
        names = await asyncio.to_thread(self._write_pointers, pointers)
        paths = b"".join(bytes(view.scratch / name) + b"\n" for name in names)
        hashing = Command("hash-object", ("-w", "--no-filters", "--stdin-paths"))
        answer = (await git.run(view, hashing, repository.invocation(stdin=paths))).stdout.split()
        pointer_ids = dict(zip(object_ids, answer, strict=True))
        await repository.put(replace(entry, object_id=pointer_ids[entry.object_id]) for entry in entries)
        return {pointer: kept / pointer.oid for pointer in pointers}

    def _write_pointers(self, pointers: Collection[Pointer]) -> list[str]:
        """Write pointers as files that the sandbox sees; return their paths in there."""
        names = [f"pointer-{number}" for number in range(len(pointers))]
        for name, pointer in zip(names, pointers, strict=True):
            file = self.shared / name
            file.write_bytes(pointer.text)
            file.chmod(0o644)
        return names


def _split(contents: Path, kept: Path, count: int) -> list[Pointer]:
    """Write each content that `cat-file --batch=%(objectsize)` has printed to a file of its own. Blocks."""
    with contents.open("rb") as file:
        return [_content(file, kept) for _ in range(count)]


def _content(file: IO[bytes], kept: Path) -> Pointer:
    line = file.readline(_LONGEST_SIZE)
    if not line.rstrip(b"\n").isdigit():
        raise GitFailed("cat-file", 0, f"git printed no size: {line!r}")
    size, hashed, target = int(line), hashlib.sha256(), kept / "new"
    with target.open("wb") as written:
        for piece in _pieces(file, size):
            hashed.update(piece)
            written.write(piece)
    if file.read(1) != b"\n":
        raise GitFailed("cat-file", 0, "git printed less than it said")
    pointer = Pointer(hashed.hexdigest(), size)
    target.replace(kept / pointer.oid)
    return pointer


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (piece := file.read(min(size, _CHUNK))):
        size -= len(piece)
        yield piece
