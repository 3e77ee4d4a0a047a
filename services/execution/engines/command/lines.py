"""Standard output of an agent whose lines are read: kept as it is, and told again as the events that it means."""

from collections.abc import Iterator
from importlib import import_module
from typing import Final, Protocol

from services.common.untrusted_json import parse_json
from services.execution.engines.command.readers.events import AgentEvents, Problem
from services.execution.engines.command.readers.shapes import Json
from services.execution.eventlog import EventWriter, Stream

MAX_LINE: Final = 8 << 20
"""The longest line that is read, in bytes. A longer one is kept like all others."""

_READERS: Final = "services.execution.engines.command.readers"
_OBJECT: Final = b'{"'
_NOTES: Final = 20


class Reader(Protocol):
    """What reads the lines of one agent: see `readers`."""

    def take(self, line: Json) -> None:
        """Read a line. It may have anything in it."""
        ...

    def problem(self) -> Problem | None:
        """After the last line: return why the work is not done; None when it is."""
        ...


class JsonLines:
    """Passes on output, and has lines that are JSON objects read. All others are ordinary output."""

    def __init__(self, writer: EventWriter, reader: str) -> None:
        self._writer = writer
        self.events = AgentEvents(writer)
        self._reader: Reader = import_module(f"{_READERS}.{reader}").Reader(self.events)
        self._line = bytearray()
        self._size = 0
        self._unread = 0

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Record a piece of output, which may begin and end anywhere in a line."""
        if stream is not Stream.STDOUT:
            self._writer.output(stream, data, time_ns)
            return
        plain = bytearray()
        for piece in _pieces(bytes(data)):
            if self._add(piece):
                self._flush(plain, time_ns)
                self._writer.output(Stream.RAW, piece, time_ns)
            else:
                plain += piece
            if piece.endswith(b"\n"):
                self._end_line()
        self._flush(plain, time_ns)

    def end(self) -> None:
        """Read the last line, if it has no line's end."""
        if self._size:
            self._end_line()

    def problem(self) -> Problem | None:
        """Return why the work is not done, as far as the lines tell; None when it is."""
        if self._unread:
            return Problem(f"{self._unread} lines of its output could not be read; `boatyard logs --raw` has them")
        return self._reader.problem()

    def _add(self, piece: bytes) -> bool:
        """Add a piece to the line; return True when the line is an object, as far as it is known."""
        self._line += piece[: max(0, MAX_LINE + 1 - len(self._line))]
        self._size += len(piece)
        return _OBJECT.startswith(self._line[: len(_OBJECT)])

    def _flush(self, plain: bytearray, time_ns: int) -> None:
        if plain:
            self._writer.output(Stream.STDOUT, bytes(plain), time_ns)
            plain.clear()

    def _end_line(self) -> None:
        line, size = bytes(self._line), self._size
        self._line.clear()
        self._size = 0
        if not line.startswith(_OBJECT):
            return
        if size > MAX_LINE:
            self.events.note(f"a line of {size} bytes is too long to be read; `boatyard logs --raw` has it")
            return
        try:
            self._reader.take(parse_json(line.decode(errors="replace")))
        except ValueError:
            self._unread += 1
            if self._unread <= _NOTES:
                self.events.note(f"a line of the output is no JSON: {line[:200].decode(errors='replace')}")


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield the lines in `data` with their ends; the last one may have none."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
