"""How much a run takes of the disk, without scanning all of it all the time.

Whatever is written takes space on its file system, and asking a file system for its free space costs microseconds. So
the files are counted again only when so much space was used since the last count that the limit might be exceeded. An
empty file takes an inode, so free inodes are space too. The count is done in slices, because the same thread moves the
program's output.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 512  # st_blocks, whatever the file system's own blocks are
_LEAST = 1024
"""What a file, link or directory counts as at least: many empty ones burden the disk, and whoever reads them."""
_LOOK_S = 0.2
_SLICE_S = 0.005
_REST = 10
"""The minimum time between two counts, as a multiple of the time that one took."""


class Growth:
    """Watches one directory. What the first count finds there is no growth, unless it held `changes` alone.

    What is in `beside`, a directory of the same file system, counts whole.
    """

    def __init__(self, directory: Path, limit: int, *, changes: bool, beside: Path | None = None) -> None:
        self.used = 0
        """The bytes that count, as of the last count: on disk, and _LEAST for smaller files."""
        self._directory = directory
        self._beside = beside
        self._limit = limit
        self._base: int | None = 0 if changes else None
        self._free = self._free_space()
        self._count: Iterator[tuple[int, bool]] | None = self._file_sizes()
        self._counted = self._counted_beside = 0
        self._spent = 0.0
        self._next = time.monotonic()

    @property
    def exceeded(self) -> bool:
        """True when the directory has grown by more than the limit."""
        return self.used > self._limit

    def due(self) -> float:
        """When to call `look`, on the monotonic clock."""
        return self._next

    def look(self) -> None:
        """Continue a count, or check whether one is needed."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._count is None:
            self._next = now + _LOOK_S
            if self._free - self._free_space() <= (self._limit - self.used) // 2:
                return
            self._free = self._free_space()
            self._count, self._counted, self._counted_beside, self._spent = self._file_sizes(), 0, 0, 0.0
        self._continue_count(now)

    def _continue_count(self, began: float) -> None:
        for size, is_beside in self._count or ():
            if is_beside:
                self._counted_beside += size
            else:
                self._counted += size
            if (spent := time.monotonic() - began) > _SLICE_S:
                self._spent += spent
                return  # and due again at once, after the output
        self._count = None
        self._spent += time.monotonic() - began
        self._next = time.monotonic() + max(_LOOK_S, _REST * self._spent)
        if self._base is None:
            self._base = self._counted
        self.used = max(0, self._counted - self._base) + self._counted_beside

    def _free_space(self) -> int:
        """Return the free bytes, and _LEAST for each free inode, where the file system has a number of them."""
        try:
            status = os.statvfs(self._directory)
        except OSError:
            return 0
        return status.f_bfree * status.f_frsize + status.f_ffree * _LEAST

    def _file_sizes(self) -> Iterator[tuple[int, bool]]:
        """Yield what each file, link and directory counts as, and whether it is beside."""
        for size in _sizes_below(self._directory):
            yield size, False
        if self._beside is not None:
            for size in _sizes_below(self._beside):
                yield size, True


def _sizes_below(directory: Path) -> Iterator[int]:
    """Yield what each file, link and directory counts as. Links are not followed; what vanishes is skipped."""
    pending = [os.fspath(directory)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield max(entry.stat(follow_symlinks=False).st_blocks * _BLOCK, _LEAST)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
