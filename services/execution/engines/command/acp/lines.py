"""The lines of a program that speaks the protocol: kept as they are, and passed on as messages."""

from collections.abc import Callable
from typing import Final

from services.common.untrusted_json import most_values, parse_json
from services.execution.engines.command.acp.updates import is_piece
from services.execution.engines.command.readers.events import AgentEvents
from services.execution.engines.command.readers.shapes import Json, an_object
from services.execution.eventlog import EventWriter, Stream

MAX_LINE: Final = 64 << 20
"""The longest line that is read, in bytes."""

_MOST_VALUES: Final = 1 << 22  # in a line that is read, which takes a hundred bytes for each of them
_NOTES: Final = 20


class Lines:
    """Puts lines together. What is no message is ordinary output."""

    def __init__(self, writer: EventWriter, events: AgentEvents, take: Callable[[Json], object]) -> None:
        self._writer = writer
        self._events = events
        self._take = take
        self._line = bytearray()
        self._dropped = 0
        self._time_ns = 0
        self._unread = 0

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Take a piece of output, which may begin and end anywhere in a line."""
        if stream is not Stream.STDOUT:
            self._writer.output(stream, data, time_ns)
            return
        *whole, rest = bytes(data).split(b"\n")
        for piece in whole:
            self._add(piece, time_ns)
            self._end_line(b"\n")
        if rest:
            self._add(rest, time_ns)

    def end(self) -> None:
        """Read the last line, if it has no line's end."""
        if self._line:
            self._end_line(b"")

    def _add(self, piece: bytes, time_ns: int) -> None:
        if not self._line:
            self._time_ns = time_ns
        room = MAX_LINE - len(self._line)
        self._line += piece[:room]
        self._dropped += max(0, len(piece) - room)

    def _end_line(self, end: bytes) -> None:
        line, self._line = self._line, bytearray()
        if self._dropped:
            size, self._dropped = len(line) + self._dropped, 0
            self._events.note(f"a line of {size} bytes is too long to be read: {MAX_LINE} are read")
            return
        message = self._message(line)
        if message is None:
            self._writer.output(Stream.STDOUT, bytes(line) + end, self._time_ns)
            return
        if not is_piece(an_object(an_object(message.get("params")).get("update"))):
            self._writer.output(Stream.RAW, bytes(line) + end, self._time_ns)
        self._take(message)

    def _message(self, line: bytearray) -> Json | None:
        if not line.lstrip().startswith(b"{"):
            return None
        if most_values(line) > _MOST_VALUES:
            self._events.note(f"a line of more than {_MOST_VALUES:,} values is not read")
            return None
        try:
            message = an_object(parse_json(line.decode(errors="replace")))
        except ValueError:
            self._unread += 1
            if self._unread <= _NOTES:
                self._events.note(f"a line of the output is no JSON: {line[:200].decode(errors='replace')}")
            return None
        return message if message.get("jsonrpc") == "2.0" else None
