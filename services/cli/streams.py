"""The standard streams of the command line: what cannot be written ends the command, with one sentence at most.

A stream that was closed before we began has its descriptor filled: otherwise the next file or socket to be opened would
get that, and what is meant for a person would be written there.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, TextIO

from services.common.lossy import LossyFile, ensure_open, lead_nowhere

STDIN, STDOUT, STDERR = range(3)


class OutputLostError(SystemExit):
    """Standard output cannot be written. No `except Exception` on the way holds it up, nor does an event loop."""

    def __init__(self, error: OSError) -> None:
        super().__init__(1)
        self.has_no_reader = error.errno == errno.EPIPE
        """True when whoever read the output has seen enough, as `head` does."""
        self.message = f"standard output cannot be written: {error.strerror}"


class _Output(io.FileIO):
    """A descriptor for what was asked for: when that cannot be written, nothing else is worth doing."""

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override] # typeshed has Buffer
        try:
            return _write(super().write, self.fileno(), data)
        except OSError as error:
            lead_nowhere(self.fileno(), os.O_WRONLY)  # what is buffered is written once more when the program ends
            raise OutputLostError(error) from None


def prepare() -> None:
    """Make the standard streams ones that are there, take every character, and fail in one way."""
    for descriptor, mode in ((STDIN, os.O_RDONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        ensure_open(descriptor, mode)  # a closed output cannot be written, which is no reason to say nothing
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(STDIN, closefd=False)), "utf-8")  # whatever the locale
    sys.stdout = _text(_Output(STDOUT, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(LossyFile(STDERR, _missing), sys.stderr)


def finish() -> None:
    """Write what is still buffered. Raises OutputLostError."""
    sys.stdout.flush()
    sys.stderr.flush()


def _missing(lines: int, why: str) -> str:
    return f"boatyard: {lines} lines of messages are missing here: they could not be written ({why})"


def _write(write: Callable[[Any], int | None], descriptor: int, data: bytes | bytearray | memoryview) -> int:
    """Write some of the data, at least a byte. Another program may have made what we share with it non-blocking."""
    while (written := write(data)) is None:
        select.select([], [descriptor], [])
    return written


def _text(raw: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    buffered: BinaryIO = io.BufferedWriter(raw)
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=raw.isatty())
