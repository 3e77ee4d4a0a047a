"""A stream for what nobody waits for, such as a log: what cannot be written is dropped and counted, and never an error.

A full disk stops the log of a program, and nothing else. When there is room again, the first thing that is written is
how many lines are missing. Standard library only.
"""

import io
import os
import select
import sys
from collections.abc import Callable
from typing import BinaryIO, TextIO, cast

STDERR = 2
_PATIENCE_MS = 1000


class LossyFile(io.FileIO):
    """A descriptor to which every write succeeds."""

    def __init__(self, descriptor: int, notice: Callable[[int, str], str]) -> None:
        """`notice` makes the line that says how many lines are missing, and why."""
        super().__init__(descriptor, "wb", closefd=False)
        self.lost_lines = 0
        """How many lines were dropped so far, whole or in part."""
        self._notice = notice
        self._untold = 0
        self._why = ""
        self._is_torn = False

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override] # typeshed has Buffer
        """Write the data if that is possible, after the notice of what was dropped before."""
        if self._untold:
            notice = self._notice(self._untold, self._why).encode("utf-8", "backslashreplace") + b"\n"
            if not self._try(b"\n" + notice if self._is_torn else notice):
                self._drop(data)
                return len(data)
            self._untold, self._is_torn = 0, False
        if not self._try(data):
            self._drop(data)
        return len(data)

    def _drop(self, data: bytes | bytearray | memoryview) -> None:
        lines = max(1, bytes(data).count(b"\n"))
        self.lost_lines += lines
        self._untold += lines

    def _try(self, data: bytes | bytearray | memoryview) -> bool:
        """Write all of the data; return False when that fails."""
        rest = memoryview(data)
        try:
            while rest:
                try:
                    written = os.write(self.fileno(), rest)
                except BlockingIOError:  # whoever shares what is behind the descriptor has made it non-blocking
                    poll = select.poll()
                    poll.register(self.fileno(), select.POLLOUT)
                    if not poll.poll(_PATIENCE_MS):
                        raise
                    continue
                self._is_torn = rest[written - 1] != 0x0A
                rest = rest[written:]
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self._why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return False
        return True


def replace_stderr(notice: Callable[[int, str], str]) -> None:
    """Replace `sys.stderr` by a stream that never fails, also where there was none."""
    ensure_open(STDERR, os.O_WRONLY)
    before: TextIO | None = sys.stderr
    encoding = "utf-8" if before is None else before.encoding
    buffered: BinaryIO = io.BufferedWriter(cast("io.RawIOBase", LossyFile(STDERR, notice)))
    sys.stderr = io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=True)


def lost_lines() -> int:
    """Return how many lines of this process's standard error were dropped so far."""
    file = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    return file.lost_lines if isinstance(file, LossyFile) else 0


def ensure_open(descriptor: int, mode: int) -> None:
    """Lead a standard stream nowhere if it is closed: the next file to be opened would get its descriptor otherwise."""
    try:
        os.fstat(descriptor)
    except OSError:
        lead_nowhere(descriptor, mode)


def lead_nowhere(descriptor: int, mode: int) -> None:
    """Lead a standard stream to the null device."""
    nowhere = os.open(os.devnull, mode)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)
