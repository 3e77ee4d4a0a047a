"""How much a directory has grown, without looking at all of it all the time.

Whatever is written takes room from its file system, and asking a file system for its free room costs microseconds. So
the files are counted again only when so much room has gone since the last count that the limit might be passed. The
count is done in slices, for the same thread moves the program's output.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 512  # st_blocks, whatever the file system's own blocks are
_LOOK_S = 0.2
_SLICE_S = 0.005
_REST = 10
"""The least time between two counts, in multiples of what one took."""


class Growth:
    """Watches one directory. What is there at the first count does not count, unless it is `empty` at the beginning."""

    def __init__(self, directory: Path, limit: int, *, empty: bool) -> None:
        self.used = 0
        """Bytes on disk by which it has grown, as of the last count."""
        self._directory = directory
        self._limit = limit
        self._base: int | None = 0 if empty else None
        self._free = self._free_now()
        self._count: Iterator[int] | None = None if empty else self._files()
        self._counted = 0
        self._spent = 0.0
        self._next = time.monotonic()

    @property
    def exceeded(self) -> bool:
        """Whether it has grown by more than the limit."""
        return self.used > self._limit

    def due(self) -> float:
        """When to call `look`, on the monotonic clock."""
        return self._next

    def look(self) -> None:
        """Go on with a count, or see whether one is needed."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._count is None:
            self._next = now + _LOOK_S
            if self._free - self._free_now() <= (self._limit - self.used) // 2:
                return
            self._free = self._free_now()
            self._count, self._counted, self._spent = self._files(), 0, 0.0
        self._go_on(now)

    def _go_on(self, began: float) -> None:
        for size in self._count or ():
            self._counted += size
            if (spent := time.monotonic() - began) > _SLICE_S:
                self._spent += spent
                return  # at once again, after the output
        self._count = None
        self._spent += time.monotonic() - began
        self._next = time.monotonic() + max(_LOOK_S, _REST * self._spent)
        if self._base is None:
            self._base = self._counted
        self.used = max(0, self._counted - self._base)

    def _free_now(self) -> int:
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return 0
        return found.f_bfree * found.f_frsize

    def _files(self) -> Iterator[int]:
        """Yield what each file takes, without following links. What goes away meanwhile is nothing."""
        waiting = [os.fspath(self._directory)]
        while waiting:
            with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        yield entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
