"""What is typed on a terminal goes from the service to a runner through a named pipe in the run directory.

    frame = kind:u8 length:u16 payload      (little endian)

A frame is no longer than what the kernel writes in one piece, so any number of writers may type at once. The runner
keeps its end open as long as it lives: no reader means that there is no runner yet, or no longer one. Standard library
only.
"""

import errno
import os
import select
import struct
from pathlib import Path

INPUT, SIZE = 1, 2

_FRAME = struct.Struct("<BH")
_SIZE = struct.Struct("<HH")
_LONGEST = select.PIPE_BUF - _FRAME.size
_READ_BYTES = 64 * 1024

TerminalEvent = bytes | tuple[int, int]
"""Bytes for the program, or the new (rows, columns) of the window."""


class TerminalInput:
    """The service's end."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when nobody listens."""
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise BlockingIOError(errno.EAGAIN, "no runner listens") from None

    def send(self, event: TerminalEvent) -> int:
        """Pass on as much as fits; return the number of bytes. Raises BlockingIOError, BrokenPipeError."""
        kind, payload = (SIZE, _SIZE.pack(*event)) if isinstance(event, tuple) else (INPUT, event[:_LONGEST])
        os.write(self._fd, _FRAME.pack(kind, len(payload)) + payload)
        return len(payload)

    def close(self) -> None:
        """Close this caller's end of the pipe; others can go on typing."""
        os.close(self._fd)


class TerminalInputReader:
    """The runner's end."""

    def __init__(self, path: Path) -> None:
        # Opened for writing too, so that the pipe does not end when the last writer closes it.
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""

    def read(self) -> list[TerminalEvent]:
        """Return what has been typed since the last call."""
        data = self._rest + os.read(self.fd, _READ_BYTES)
        events: list[TerminalEvent] = []
        start = 0
        while start + _FRAME.size <= len(data):
            kind, length = _FRAME.unpack_from(data, start)
            end = start + _FRAME.size + length
            if end > len(data):
                break
            payload = data[start + _FRAME.size : end]
            events.append(_SIZE.unpack(payload) if kind == SIZE else payload)
            start = end
        self._rest = data[start:]
        return events
