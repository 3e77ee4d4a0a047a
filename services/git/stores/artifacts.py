"""Artifacts: files kept by an id, apart from any repository, and removed as results are. No sandbox ever sees them.

The directory of an id has the files, under numbers, and a manifest with their names in order.
"""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import structlog

from services.common.errors import NotFound, OutOfRange
from services.common.text import lossy
from services.git import failures
from services.git.gitcmd import GitError, OutputTooLarge
from services.git.model import Artifact, OmissionReason, OmittedArtifact, TakenArtifacts, WorkingTree
from services.git.paths import GitPaths
from services.git.worktree.artifact_reader import MAX_NAME_BYTES, ArtifactReader, members
from services.git.worktree.submodule_patches import SubmodulePatches, WrittenSubmodule
from services.redaction.strand import Flow, Redactor

PATCHES: Final = ".boatyard/submodules"
"""What the names of patches begin with. No pattern names anything in that directory."""
_MANIFEST: Final = "manifest.json"
_TAKE_SECONDS: Final = 540.0
_BLOCK: Final = 1 << 20
_PIECE: Final = 64 << 10

_log = structlog.get_logger()


class ArtifactStore:
    """Keeps artifacts, bounded by the reader's limits, for `keep_for`, and longer while the tree exists."""

    def __init__(
        self,
        paths: GitPaths,
        reader: ArtifactReader,
        patches: SubmodulePatches,
        keep_for: timedelta,
        min_free_bytes: int,
    ) -> None:
        self._paths = paths
        self._reader = reader
        self._patches = patches
        self._keep_for = keep_for
        self._min_free_bytes = min_free_bytes

    async def take(
        self,
        artifacts_id: str,
        tree: WorkingTree,
        patterns: Sequence[str],
        redactor: Redactor,
        written: Sequence[WrittenSubmodule] = (),
    ) -> TakenArtifacts:
        """Keep the files of a tree that patterns name, and patches of what submodules have `written`, without secrets.

        Raises:
            FailedPrecondition: TAKE_FAILED, RESULT_TOO_LARGE.
            Exhausted: DISK_FULL.
        """
        scratch = self._paths.scratch()
        archive = scratch / "archive"
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                self._paths.check_room(self._min_free_bytes)
                patches, too_much = await self._patched(tree, written, scratch)
                found = await self._reader.find(tree, patterns, sum(path.stat().st_size for path in patches.values()))
                found.omitted.extend(too_much)
                self._paths.check_room(self._min_free_bytes + 2 * sum(found.sizes.values()))
                if found.sizes:
                    await self._reader.read(tree, found, archive)
                read = members(archive, found.sizes) if found.sizes else ()
                files = chain(_opened(patches), read)
                taken = await asyncio.to_thread(
                    _write, scratch / "kept", files, redactor, tree.path, self._reader.most_bytes
                )
        except OutputTooLarge as error:
            raise failures.result_too_large(artifacts_id, error) from error
        except TimeoutError as error:
            raise failures.take_failed(
                artifacts_id, TimeoutError(f"it took longer than {_TAKE_SECONDS:g} s")
            ) from error
        except (GitError, OSError) as error:
            raise failures.take_failed(artifacts_id, error) from error
        else:
            await asyncio.to_thread(self._put, artifacts_id, scratch / "kept")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        done = {*taken.read, *(path for path, _ in found.omitted)}
        unread = ((path, OmissionReason.UNREADABLE) for path in found.sizes if path not in done)
        omitted = sorted({*found.omitted, *taken.omitted, *unread}, key=lambda each: each[0])
        shown = (OmittedArtifact(_shown(path, redactor), reason) for path, reason in omitted)
        return TakenArtifacts(taken.artifacts, tuple(shown))

    async def _patched(
        self, tree: WorkingTree, written: Sequence[WrittenSubmodule], scratch: Path
    ) -> tuple[dict[str, Path], list[tuple[str, OmissionReason]]]:
        """Write patches of submodules, by the names under which they are kept; return those that are not kept too."""
        patches: dict[str, Path] = {}
        omitted: list[tuple[str, OmissionReason]] = []
        left = self._reader.most_bytes
        for number, submodule in enumerate(written):
            name = f"{PATCHES}/{lossy(submodule.path)}.patch"
            target = scratch / f"patch-{number}"
            try:
                await self._patches.write(tree, submodule, target, left)
            except OutputTooLarge:
                omitted.append((name, OmissionReason.TOO_LARGE))
                continue
            except GitError as error:
                _log.info("cannot make a patch of a submodule", path=name, error=str(error))
                omitted.append((name, OmissionReason.UNREADABLE))
                continue
            if size := target.stat().st_size:
                patches[name] = target
                left -= size
        return patches, omitted

    async def kept(self, artifacts_id: str) -> list[Artifact]:
        """Return all that is kept under an id, ordered by name; nothing when it has expired."""
        kept = await asyncio.to_thread(lambda: [each for each, _ in self._all(artifacts_id)])
        return sorted(kept, key=lambda each: each.name.encode())

    async def read(
        self, artifacts_id: str, name: str, offset: int, max_bytes: int
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        """Yield the content from an offset on, in pieces, each with the offset after it. 0 bytes mean all.

        Raises:
            NotFound: ARTIFACT_NOT_FOUND.
            OutOfRange: the offset lies beyond the end.
        """
        kept = await asyncio.to_thread(lambda: {each.name: (each, path) for each, path in self._all(artifacts_id)})
        if name not in kept:
            raise NotFound("artifact", name)
        artifact, path = kept[name]
        if offset > artifact.size_bytes:
            raise OutOfRange(0, artifact.size_bytes + 1)
        end = min(artifact.size_bytes, offset + max_bytes) if max_bytes else artifact.size_bytes
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:  # it has just been replaced, or has expired
            raise NotFound("artifact", name) from None
        with file:
            file.seek(offset)
            while offset < end:
                block = await asyncio.to_thread(file.read, min(_BLOCK, end - offset))
                for start in range(0, len(block), _PIECE):
                    piece = block[start : start + _PIECE]
                    offset += len(piece)
                    yield piece, offset

    async def remove_expired(self, now: datetime) -> list[str]:
        """Remove what has expired; return the ids."""
        return await asyncio.to_thread(self._remove_before, now - self._keep_for)

    def _all(self, artifacts_id: str) -> Iterable[tuple[Artifact, Path]]:
        directory = self._paths.artifacts / artifacts_id
        for number, entry in enumerate(_manifest(directory)["artifacts"]):
            yield Artifact(*entry), directory / str(number)

    def _put(self, artifacts_id: str, kept: Path) -> None:
        """Put what was written aside in the place of what was there."""
        place = self._paths.artifacts / artifacts_id
        if place.is_dir():
            place.rename(kept.with_name("replaced"))
        kept.rename(place)

    def _remove_before(self, time: datetime) -> list[str]:
        removed = []
        for directory in self._paths.artifacts.glob("*"):
            try:
                if self._is_expired(directory, time):
                    gone = self._paths.scratch()
                    directory.rename(gone / "expired")
                    shutil.rmtree(gone)
                    removed.append(directory.name)
            except OSError as error:  # it has just been replaced, or the disk has a fault
                _log.warning("cannot remove artifacts", artifacts_id=directory.name, error=str(error))
        return removed

    def _is_expired(self, directory: Path, time: datetime) -> bool:
        taken = datetime.fromtimestamp((directory / _MANIFEST).stat().st_mtime, UTC)
        return taken <= time and not Path(_manifest(directory)["tree"]).exists()


def _opened(files: Mapping[str, Path]) -> Iterator[tuple[str, IO[bytes]]]:
    for name, path in files.items():
        with path.open("rb") as file:
            yield name, file


class _Written:
    """What was written: the artifacts, the paths that were read for them, and what could not become one."""

    def __init__(self) -> None:
        self.artifacts: tuple[Artifact, ...] = ()
        self.read: set[str] = set()
        self.omitted: list[tuple[str, OmissionReason]] = []


def _write(
    target: Path, files: Iterable[tuple[str, IO[bytes]]], redactor: Redactor, tree: Path, most_bytes: int
) -> _Written:
    """Write files without secrets, of at most so many bytes together, and a manifest, to a new directory. Blocks.

    What stands for a secret may be longer than the secret: the bytes count that are written.
    """
    target.mkdir(mode=0o700)
    written, left = _Written(), most_bytes
    kept: dict[str, Artifact] = {}
    for path, content in files:
        written.read.add(path)
        name = redactor.text(path)
        with content:
            if name in kept or len(name.encode()) > MAX_NAME_BYTES:
                written.omitted.append((path, OmissionReason.UNUSABLE_NAME))
                continue
            copied = _copy(content, target / str(len(kept)), redactor, left)
            if copied is None:
                written.omitted.append((path, OmissionReason.TOO_LARGE))
                continue
            kept[name] = Artifact(name, *copied)
            left -= kept[name].size_bytes
    written.artifacts = tuple(kept.values())
    entries = [(each.name, each.size_bytes, each.sha256) for each in written.artifacts]
    (target / _MANIFEST).write_text(json.dumps({"tree": str(tree), "artifacts": entries}))
    return written


def _copy(content: IO[bytes], target: Path, redactor: Redactor, most_bytes: int) -> tuple[int, str] | None:
    """Copy a content without secrets; return the size and the hash of what was written, None if it is too large."""
    clean, digest, size = Flow(redactor), hashlib.sha256(), 0
    with target.open("wb") as file:
        while True:
            block = content.read(_BLOCK)
            data = clean.take(block, last=not block)
            if size + len(data) > most_bytes:
                file.truncate(0)
                return None
            digest.update(data)
            size += file.write(data)
            if not block:
                return size, digest.hexdigest()


def _manifest(directory: Path) -> Any:  # noqa: ANN401 - JSON of our own
    try:
        return json.loads((directory / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):  # it has just been replaced
        return {"tree": "", "artifacts": []}


def _shown(path: str, redactor: Redactor) -> str:
    name = redactor.text(path.encode(errors="surrogateescape").decode(errors="replace"))
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
