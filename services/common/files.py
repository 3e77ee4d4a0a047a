"""Writes small files that other processes may read at any moment, also on a full disk. Standard library only."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Make a file (0600) appear whole or not at all. With `durable`, wait until it is on the disk.

    What `reserve` has set aside for it is used; a failure leaves that as it was, and no other file.
    """
    temporary = _temporary(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        is_reserved = os.fstat(fd).st_size > 0
        try:
            _write_all(fd, content)
            os.ftruncate(fd, len(content))
        except OSError:
            if not is_reserved:
                temporary.unlink(missing_ok=True)
            raise
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    if durable:
        sync_directory(path.parent)


def reserve(path: Path, size: int) -> None:
    """Set an inode and `size` bytes aside, by which a later `write_whole` of the file succeeds on a full disk."""
    fd = os.open(_temporary(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def release(path: Path) -> None:
    """Give up what `reserve` has set aside for a file, if it was not used."""
    _temporary(path).unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def sync_directory(path: Path) -> None:
    """Wait until all that was made, renamed or removed in a directory is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def foreign_owner(path: Path) -> int | None:
    """Return the owner of a file, if that is none of us, of root and of the directory's owner. Raises OSError.

    Whoever that is put it where anybody may put files, and knows what is in it.
    """
    owner = path.stat().st_uid
    return None if owner in {0, os.geteuid(), path.parent.stat().st_uid} else owner
