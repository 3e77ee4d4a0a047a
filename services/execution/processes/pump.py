"""Moves the program's output into the event log: single lines at once, floods in large blocks, and no secrets."""

import fcntl
import math
import os
import time
from collections.abc import Callable

from services.execution.eventlog import EventWriter, Stream
from services.redaction.strand import Redactor, join

# Measured: blocks that stay in the processor's cache on their way cost half as much as blocks of a megabyte.
_READ_BYTES = 256 * 1024
_BUFFER_BYTES = 512 * 1024
_FLUSH_AT = 128 * 1024
_QUIET_S = 0.025
_FLOOD_READ = 16 * 1024
_FLOOD_PAUSE_S = 0.0005
_TAIL_BYTES = 2048

Sink = Callable[[Stream, memoryview | bytes, int], object]
"""Records output of a stream, of which the first byte was read at a time in nanoseconds since 1970."""


class _Flow:
    """One stream: what was read but not recorded yet, and what is held back because it may begin a secret."""

    def __init__(self, stream: Stream, redactor: Redactor) -> None:
        self.stream = stream
        self.buffer = bytearray(_BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.strand = redactor.strand()
        self.fd = -1
        self.capacity = 0
        self.held = 0
        self.filled = 0
        self.first_time_ns = 0
        self.release_at = math.inf


class Pump:
    """Collects output and writes it in the order of its arrival, at most every 25 ms unless there is a lot."""

    def __init__(
        self, writer: EventWriter, limit: int, complaints: Stream = Stream.STDERR, record: Sink | None = None
    ) -> None:
        """`limit` is in bytes, for both streams together; what exceeds it is read and dropped.

        `record` gets the output in place of the writer's own method.
        """
        self._complaints = complaints
        self._write_output = writer.output if record is None else record
        self._limit = limit
        self._flows = {stream: _Flow(stream, writer.redactor) for stream in (Stream.STDOUT, Stream.STDERR)}
        self._current = self._flows[Stream.STDOUT]
        self._next_flush = 0.0
        self.output_bytes = 0
        """Bytes accepted so far. `flush` records all but what may become a secret, and `end` records the rest."""
        self.exceeded = False
        """True when the program wrote more than the limit."""
        self.last_output = time.monotonic()
        """When the program last wrote, on the monotonic clock."""
        self.complaint = b""
        """The last part of the stream on which programs complain, as recorded."""

    def receive(self, fd: int, stream: Stream) -> int | None:
        """Read once from a non-blocking descriptor; return the byte count: 0 at the end, None if none are there now."""
        flow = self._flows[stream]
        if flow.fd != fd:
            flow.fd, flow.capacity = fd, _capacity(fd)
        if flow is not self._current:
            self.flush()
            self._current = flow
        try:
            count = os.readv(fd, [flow.view[flow.filled : flow.filled + _READ_BYTES]])
        except BlockingIOError:
            return None
        if count == 0:
            return 0
        self.last_output = time.monotonic()
        if flow.filled == flow.held:
            flow.first_time_ns = time.time_ns()
        accepted = min(count, self._limit - self.output_bytes)
        self.exceeded |= accepted < count
        self.output_bytes += accepted
        flow.filled += accepted
        if flow.filled >= _FLUSH_AT:
            self.flush()
        elif _FLOOD_READ <= count < flow.capacity // 2:
            # Waiting until the pipe holds more costs less than waking up for every small piece.
            time.sleep(_FLOOD_PAUSE_S)
        return count

    def drain(self, fd: int, stream: Stream) -> None:
        """Read all that there is now."""
        while self.receive(fd, stream):
            pass

    def due(self) -> float:
        """When to call `flush`, on the monotonic clock; infinite while there is nothing to write."""
        next_flush = self._next_flush if self._current.filled > self._current.held else math.inf
        return min(next_flush, *(flow.release_at for flow in self._flows.values()))

    def flush(self) -> None:
        """Write what was collected, and release what was held back long enough."""
        if self._current.filled > self._current.held:
            self._write(self._current)
        now = time.monotonic()
        for flow in self._flows.values():
            if now >= flow.release_at:
                flow.release_at = math.inf
                released = flow.strand.release(flow.held)
                self._record(flow, flow.view[released])

    def end(self) -> None:
        """Write everything, because nothing follows."""
        for flow in (self._current, *self._flows.values()):
            self._write(flow, last=True)

    def _write(self, flow: _Flow, *, last: bool = False) -> None:
        pieces, keep = flow.strand.take(flow.buffer, flow.filled, last=last)
        match pieces:
            case [slice() as whole]:
                self._record(flow, flow.view[whole])
            case [_, *_]:
                self._record(flow, join(flow.buffer, pieces))
        flow.held = flow.filled - keep
        flow.view[: flow.held] = flow.view[keep : flow.filled]
        flow.filled = flow.held
        self._next_flush = time.monotonic() + _QUIET_S
        flow.release_at = self._next_flush if flow.strand.releasable else math.inf

    def _record(self, flow: _Flow, data: memoryview | bytes) -> None:
        self._write_output(flow.stream, data, flow.first_time_ns)
        if flow.stream is self._complaints:
            self.complaint = (self.complaint + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]


def _capacity(fd: int) -> int:
    """Return how many bytes a pipe holds; 0 for anything else."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 0
