"""Takes the contents of files for Git LFS out of a result, and puts their pointers in their place.

Git in the sandbox has read the files into objects; out here they are only hashed, and kept by their hashes.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

import structlog

from services.git.gitcmd import Command, GitError, GitFailed
from services.git.pointers import Pointer
from services.git.worktree.artifact_reader import members
from services.git.worktree.changes import IndexEntry
from services.git.worktree.sandboxed import SandboxedGit, TreeView
from services.git.worktree.scratch_repository import ScratchRepository

_CHUNK: Final = 1 << 20
_LONGEST_SIZE: Final = 32
_TOUCHED: Final = (
    *("--format=", "--raw", "-z", "-m", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv"),
)
_REGULAR: Final = {b"100644", b"100755"}

_log = structlog.get_logger()


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

    async def take_earlier(
        self, git: SandboxedGit, view: TreeView, repository: ScratchRepository, commits: str, known: LfsContents
    ) -> LfsContents:
        """Add the contents of pointers that an agent's own commits have, and its tree no more.

        Git has kept them where the program of Git LFS would. What cannot be read there is not had.
        """
        try:
            listing = await git.run(view, Command("log", _TOUCHED, (commits,)), repository.invocation())
            changes = (each.split(b" ") for each in listing.stdout.split(b"\0") if each.startswith(b":"))
            written = {object_id for _, mode, _, object_id, _ in changes if mode in _REGULAR}
            earlier = {*(await repository.pointers(written)).values()} - known.pointers if written else set()
            if not earlier:
                return known
            places = {f".git/lfs/objects/{each.oid[:2]}/{each.oid[2:4]}/{each.oid}": each for each in earlier}
            archive = self.own / "lfs-earlier"
            await git.write_archive(view, map(str.encode, places), archive, self.limit)
            files = await asyncio.to_thread(self._unpack, archive, places)
        except GitError as error:
            _log.info("cannot read what earlier commits have in Git LFS", error=str(error))
            return known
        return LfsContents(known.pointers.union(files), {**known.files, **files})

    def _unpack(self, archive: Path, places: Mapping[str, Pointer]) -> dict[Pointer, Path]:
        """Write the contents of an archive that are those of their pointers. Blocks."""
        kept, found = self.own / "lfs", {}
        kept.mkdir(exist_ok=True)
        for place, content in members(archive, places):
            pointer = _kept(content, places[place].size, kept)
            if pointer == places[place]:
                found[pointer] = kept / pointer.oid
        return found

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
    pointer = _kept(file, int(line), kept)
    if file.read(1) != b"\n":
        raise GitFailed("cat-file", 0, "git printed less than it said")
    return pointer


def _kept(file: IO[bytes], size: int, kept: Path) -> Pointer:
    """Write the next `size` bytes of a file to one that has their hash as its name."""
    hashed, target = hashlib.sha256(), kept / "new"
    with target.open("wb") as written:
        for piece in _pieces(file, size):
            hashed.update(piece)
            written.write(piece)
    pointer = Pointer(hashed.hexdigest(), size)
    target.replace(kept / pointer.oid)
    return pointer


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (piece := file.read(min(size, _CHUNK))):
        size -= len(piece)
        yield piece
