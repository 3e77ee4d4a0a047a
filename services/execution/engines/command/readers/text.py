"""Reads the output of an agent that writes for people: what it says of its end is found by its preset's expressions."""

import re

from services.execution.engines.command.readers.events import AgentEvents, Problem
from services.execution.eventlog import EventWriter, Stream

_TAIL_BYTES = 64 * 1024
_SHOWN = 300


class PlainText:
    """Passes on output, and keeps the end of it in mind."""

    def __init__(self, writer: EventWriter, done: str = "", failed: str = "") -> None:
        """`done` is found in the output of an agent that is done, `failed` in that of one that could not be."""
        self._writer = writer
        self.events = AgentEvents(writer)
        self._done, self._failed = done, failed
        self._tail = b""

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Record a piece of output."""
        self._writer.output(stream, data, time_ns)
        self._tail = (self._tail + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]

    def end(self) -> None:
        """Nothing follows."""
        self.events.last_words = self._tail.decode(errors="replace")[-_TAIL_BYTES:]

    def problem(self) -> Problem | None:
        """Return why the work is not done, as far as the output tells; None when it is."""
        said = self._tail.decode(errors="replace")
        if self._failed and (found := re.search(self._failed, said)):
            return Problem(f"it says: {found[0].strip()[:_SHOWN]}")
        if self._done and not re.search(self._done, said):
            return Problem("its output does not say that the work is done")
        return None
