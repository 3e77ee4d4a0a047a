"""Bounds what a log that is being written takes of the machine's page cache.

A flood would leave all of itself there, in the place of base trees that others read again and again; and memory that
nobody used is slow to come by where a hypervisor has to give it first: there, writing a log into pages that were just
given up costs a quarter (decision 0022). So what was written is sent to the disk, and let go some MiB later. Viewers
who follow closely find it in memory, others read it from the disk.
"""

import os
import threading

_STEP_BYTES = 1024 * 1024
_KEPT_BYTES = 16 * 1024 * 1024


class PageCacheBound:
    """Goes behind the writer of one file, in a thread of its own, as soon as there is more than what is kept.

    The writer never waits for it: where the disk is slower than the writer, the page cache grows as it would without.
    """

    def __init__(self, fd: int) -> None:
        """`fd` stays the caller's, and open until `close`."""
        self._fd = fd
        self._end = 0
        self._closed = False
        self._grown = threading.Event()
        self._thread: threading.Thread | None = None

    def written(self, end: int) -> None:
        """Say that the file goes to `end`, in bytes."""
        if end - self._end < _STEP_BYTES or end < _KEPT_BYTES:
            return
        self._end = end
        self._grown.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="page cache", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let the rest be; waits for a call to the disk that may be under way."""
        self._closed = True
        self._grown.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        at = 0
        while self._grown.wait() and not self._closed:
            self._grown.clear()
            while at + _STEP_BYTES <= self._end and not self._closed:
                # What is not on the disk yet cannot be let go: the same advice only begins to write it there.
                os.posix_fadvise(self._fd, at, _STEP_BYTES, os.POSIX_FADV_DONTNEED)
                if at >= _KEPT_BYTES:
                    os.posix_fadvise(self._fd, at - _KEPT_BYTES, _STEP_BYTES, os.POSIX_FADV_DONTNEED)
                at += _STEP_BYTES
