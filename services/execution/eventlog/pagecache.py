"""Bounds how much of the machine's page cache a log takes while it is written.

A flood would leave all of its bytes there, in place of base trees that others read again and again. And where a
hypervisor must first provide memory that was never used, writing a log into pages that were just released takes a
quarter of the time that it takes into new ones (decision 0022). So what was written is sent to the disk, and released
from the cache some MiB later: viewers who follow closely find it in memory, others read it from the disk.
"""

import os
import threading

_STEP_BYTES = 1024 * 1024
_KEPT_BYTES = 16 * 1024 * 1024


class PageCacheBound:
    """Follows the writer of one file, in a thread of its own, as soon as the file is larger than what is kept.

    The writer never waits for it: if the disk is slower than the writer, the page cache grows as it would without it.
    """

    def __init__(self, fd: int) -> None:
        """The caller keeps `fd`, and must leave it open until after `close`."""
        self._fd = fd
        self._end = 0
        self._closed = False
        self._grown = threading.Event()
        self._thread: threading.Thread | None = None

    def written(self, end: int) -> None:
        """Report that the file is now `end` bytes long."""
        if end - self._end < _STEP_BYTES or end < _KEPT_BYTES:
            return
        self._end = end
        self._grown.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="page cache", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Leave the rest in the cache; wait for a call to the disk that may be under way."""
        self._closed = True
        self._grown.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        offset = 0
        while self._grown.wait() and not self._closed:
            self._grown.clear()
            while offset + _STEP_BYTES <= self._end and not self._closed:
                # Pages that are not on the disk yet cannot be released: this advice only begins to write them there.
                os.posix_fadvise(self._fd, offset, _STEP_BYTES, os.POSIX_FADV_DONTNEED)
                if offset >= _KEPT_BYTES:
                    os.posix_fadvise(self._fd, offset - _KEPT_BYTES, _STEP_BYTES, os.POSIX_FADV_DONTNEED)
                offset += _STEP_BYTES
