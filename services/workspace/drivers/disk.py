"""Checks that a copy fits on the disk before it begins."""

import asyncio
import errno
import os
import tempfile
from collections import OrderedDict
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

from services.common.errors import Exhausted

_FICLONE = 0x40049409  # linux/fs.h: share the extents of another file
_REMEMBERED_BASES = 256
_INODE_RESERVE = 10_000
_INODE_BYTES = 4096
"""What each file of a shared copy takes: its inode, and its part of the directory."""


class DiskAdmission:
    """Refuses copies, with DISK_FULL, that would leave less than `reserve_bytes` free below `directory`."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._shares_extents = shares_extents(directory)
        self._sizes: OrderedDict[tuple[Path, int, int], tuple[int, int]] = OrderedDict()

    @property
    def shares_extents(self) -> bool:
        """True when copies share their data with the base until they are changed (reflink)."""
        return self._shares_extents

    async def admit(self, layers: tuple[Path, ...]) -> None:
        """Raise Exhausted(DISK_FULL) when a copy of all these trees does not fit."""
        sizes = [await self._size(layer) for layer in layers]
        size, files = sum(size for size, _ in sizes), sum(files for _, files in sizes)
        self._admit(files * _INODE_BYTES if self._shares_extents else size, files)

    async def check(self) -> None:
        """Do as `admit_nothing`, for who asks ahead."""
        self.admit_nothing()

    def admit_nothing(self) -> None:
        """Raise Exhausted(DISK_FULL) when there is no room even for a workspace that copies nothing."""
        self._admit(0, 0)

    def _admit(self, needed: int, files: int) -> None:
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        if free - needed < self._reserve_bytes:
            raise disk_full(self._directory, free=free, needed=needed, reserved=self._reserve_bytes)
        # btrfs and the like report no inodes, because they make them on demand.
        if disk.f_files and disk.f_favail - files < _INODE_RESERVE:
            raise disk_full(
                self._directory, free_inodes=disk.f_favail, needed_inodes=files, reserved_inodes=_INODE_RESERVE
            )

    async def _size(self, base: Path) -> tuple[int, int]:
        """Return (bytes on disk, files) of a base. Bases never change, so each is walked once while remembered."""
        key = _identity(base)
        size = self._sizes.pop(key, None)
        if size is None:
            size = await asyncio.to_thread(tree_size, base)
        self._sizes[key] = size
        if len(self._sizes) > _REMEMBERED_BASES:
            self._sizes.popitem(last=False)
        return size


def _identity(base: Path) -> tuple[Path, int, int]:
    stat = base.stat()
    return base, stat.st_ino, stat.st_mtime_ns


def disk_full(directory: Path, **numbers: int) -> Exhausted:
    """Return the error for a disk that is full, or would be."""
    facts = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in numbers.items())
    return Exhausted(
        "DISK_FULL",
        f"no room for another workspace on the disk of {directory}"
        + (f" ({facts})" if facts else "")
        + "; delete or sweep workspaces, or free space otherwise",
        quota=str(directory),
        metadata={"directory": str(directory), **{name: str(value) for name, value in numbers.items()}},
    )


def tree_size(directory: Path) -> tuple[int, int]:
    """Return (bytes on disk, files and directories) below a directory. Links are counted, not followed.

    What disappears meanwhile, or cannot be read, is left out.
    """
    size, count, todo = 0, 0, [os.fsencode(directory)]
    while todo:
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
    return size, count


def shares_extents(directory: Path) -> bool:
    """Try it: return True when the file system of `directory` can share data between files (btrfs, XFS, bcachefs)."""
    with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as target:
        source.write(b"x" * 4096)
        source.flush()
        try:
            ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EXDEV, errno.EPERM}:
                return False
            raise
    return True
