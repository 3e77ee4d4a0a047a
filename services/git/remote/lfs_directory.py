"""Objects of Git LFS in a repository on this machine: below its `lfs/objects`, where the client of Git LFS has them.

Git's far side does not look there, so we do, and only in repositories of our own user. Each directory is opened from
the one above it, and no symbolic link is followed: nothing in the repository leads out of it.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from services.common.errors import ServiceError
from services.common.ids import new_id
from services.git.gitcmd import GitError
from services.git.pointers import Pointer
from services.git.remote.far_side import FarSide
from services.git.remote.lfs import Sink
from services.git.remote.lfs_http import LfsError
from services.git.remote.ways import user_name

_PLACE: Final = ("lfs", "objects")
_CHUNK: Final = 1 << 20
_ANOTHER: Final = "what its repository has is not what its pointer names"
_NO_LINK: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LfsDirectory:
    """The objects of the repository behind a far side."""

    def __init__(self, far_side: FarSide) -> None:
        self._far_side = far_side

    async def exists(self) -> bool:
        """True when there is one, our own user's: somebody has used Git LFS there."""
        try:
            async with self._objects():
                return True
        except LfsError:
            return False

    async def fetch(self, wanted: Collection[Pointer], sink: Sink) -> dict[Pointer, LfsError]:
        """Get objects; return why those could not be had that are missing. Raises as LfsRemotes.fetch does."""
        missing: dict[Pointer, LfsError] = {}
        try:
            async with self._objects() as objects:
                for pointer in sorted(wanted):
                    try:
                        await asyncio.to_thread(_check, objects, pointer)
                        await sink.make_room(pointer.size)
                        file = sink.scratch / pointer.oid
                        await asyncio.to_thread(_copy, objects, pointer, file)
                        await asyncio.to_thread(sink.keep, pointer, file)
                    except LfsError as error:
                        missing[pointer] = error
        except LfsError as error:
            return dict.fromkeys(wanted, error)
        return missing

    async def upload(self, objects: Mapping[Pointer, Path]) -> None:
        """Put objects there that it does not have. Raises LfsError."""
        async with self._objects() as directory:
            for pointer, file in sorted(objects.items()):
                try:
                    await asyncio.to_thread(_put, directory, pointer, file)
                except OSError as error:  # such as a full disk, or one that cannot be written
                    raise LfsError(f"its repository takes no object: {error.strerror}") from error

    @contextlib.asynccontextmanager
    async def _objects(self) -> AsyncIterator[int]:
        """Give a descriptor of the directory. Raises LfsError."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                repository = await stack.enter_async_context(self._far_side.repository())
                descriptor = stack.enter_context(_opened(repository.parts[0].descriptor, _PLACE))
            except (GitError, ServiceError) as error:
                raise LfsError(str(error)) from error
            yield descriptor


@contextlib.contextmanager
def _opened(start: int, names: Iterable[str], *, make: bool = False) -> Iterator[int]:
    """Open the directory to which names lead, one after the other. Raises LfsError: there is none, or not our own."""
    descriptor = os.dup(start)
    try:
        for name in names:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=descriptor)
            outer, descriptor = descriptor, _open(name, descriptor, os.O_DIRECTORY)
            os.close(outer)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _object(objects: int, pointer: Pointer) -> Iterator[int]:
    """Open an object, a file of ours with the pointer's size. Raises LfsError."""
    with _opened(objects, _way(pointer)) as directory:
        descriptor = _open(pointer.oid, directory)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != pointer.size:
                raise LfsError(_ANOTHER)
            yield descriptor
        finally:
            os.close(descriptor)


def _open(name: str, directory: int, flags: int = 0) -> int:
    """Open what is in a directory, and our own user's, to read it. Raises LfsError."""
    try:
        descriptor = os.open(name, os.O_RDONLY | _NO_LINK | flags, dir_fd=directory)
    except FileNotFoundError as error:
        raise LfsError("its repository does not have it") from error
    except OSError as error:
        raise LfsError(f"its repository has no Git LFS that can be used: {error.strerror}") from error
    owner = os.fstat(descriptor).st_uid
    if owner == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise LfsError(f"Git LFS is used in the cell's own repositories alone: {name} belongs to {user_name(owner)}")


def _check(objects: int, pointer: Pointer) -> None:
    """Raise LfsError when an object is not there."""
    with _object(objects, pointer):
        return


def _copy(objects: int, pointer: Pointer, target: Path) -> None:
    """Write an object to a new file. Raises LfsError: its content is another one."""
    hashed, left = hashlib.sha256(), pointer.size
    with _object(objects, pointer) as descriptor, target.open("wb") as file:
        while left and (piece := os.read(descriptor, min(left, _CHUNK))):
            hashed.update(piece)
            file.write(piece)
            left -= len(piece)
    if left or hashed.hexdigest() != pointer.oid:
        target.unlink()
        raise LfsError(_ANOTHER)


def _put(objects: int, pointer: Pointer, source: Path) -> None:
    """Write an object where it belongs, unless it is there: it appears whole. Raises LfsError."""
    with contextlib.suppress(LfsError), _object(objects, pointer):
        return
    with _opened(objects, _way(pointer), make=True) as directory:
        name = new_id("new")
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o644, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file, source.open("rb") as content:
                shutil.copyfileobj(content, file, _CHUNK)
            os.rename(name, pointer.oid, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            raise


def _way(pointer: Pointer) -> tuple[str, str]:
    return pointer.oid[:2], pointer.oid[2:4]
