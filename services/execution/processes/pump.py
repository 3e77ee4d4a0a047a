"""Moves what the program writes into the event log: a lone line at once, a flood in large blocks, and no secret."""

import fcntl
import math
import os
import time

from services.execution.eventlog import EventWriter, Stream
from services.execution.redaction.strand import Redactor, join

# Measured: blocks that stay in the processor's cache on their way cost half of what those of a megabyte do.
_READ_BYTES = 256 * 1024
_BUFFER_BYTES = 512 * 1024
_FLUSH_AT = 128 * 1024
_QUIET_S = 0.025
_FLOOD_READ = 16 * 1024
_FLOOD_PAUSE_S = 0.0005
_TAIL_BYTES = 2048


class _Flow:
    """One stream on its way: what was read and not recorded yet, and what is kept back for it may begin a secret."""

    def __init__(self, stream: Stream, redactor: Redactor) -> None:
        self.stream = stream
        self.buffer = bytearray(_BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.strand = redactor.strand()
        self.fd = -1
        self.room = 0
        self.kept = 0
        self.filled = 0
        self.first_time_ns = 0
        self.tell_at = math.inf


class Pump:
    """Collects output and writes it in the order in which it arrived, at most every 25 ms unless there is much."""

    def __init__(self, writer: EventWriter, limit: int) -> None:
        """`limit` is in bytes, over both streams; what exceeds it is read and dropped."""
        self._writer = writer
        self._limit = limit
        self._flows = {stream: _Flow(stream, writer.redactor) for stream in (Stream.STDOUT, Stream.STDERR)}
        self._current = self._flows[Stream.STDOUT]
        self._next_flush = 0.0
        self.output_bytes = 0
        """Taken so far; all of it is recorded after `flush`, but for what may become a secret, and after `end`."""
        self.exceeded = False
        """Whether the program wrote more than the limit."""
        self.last_output = time.monotonic()
        """When the program last wrote, on the monotonic clock."""
        self.complaint = b""
        """The end of what was recorded of standard error."""

    def receive(self, fd: int, stream: Stream) -> int | None:
        """Read once from a non-blocking descriptor: how many bytes, 0 at the end, None when there is nothing now."""
        flow = self._flows[stream]
        if flow.fd != fd:
            flow.fd, flow.room = fd, _room(fd)
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
        if flow.filled == flow.kept:
            flow.first_time_ns = time.time_ns()
        taken = min(count, self._limit - self.output_bytes)
        self.exceeded |= taken < count
        self.output_bytes += taken
        flow.filled += taken
        if flow.filled >= _FLUSH_AT:
            self.flush()
        elif _FLOOD_READ <= count < flow.room // 2:
            # To wait until the pipe holds more costs less than to wake up for every little of it.
            time.sleep(_FLOOD_PAUSE_S)
        return count

    def drain(self, fd: int, stream: Stream) -> None:
        """Read all that is there by now."""
        while self.receive(fd, stream):
            pass

    def due(self) -> float:
        """When `flush` is to be called, on the monotonic clock; infinite while there is nothing."""
        waiting = self._next_flush if self._current.filled > self._current.kept else math.inf
        return min(waiting, *(flow.tell_at for flow in self._flows.values()))

    def flush(self) -> None:
        """Write what was collected."""
        if self._current.filled > self._current.kept:
            self._write(self._current)
        now = time.monotonic()
        for flow in self._flows.values():
            if now >= flow.tell_at:
                flow.tell_at = math.inf
                shown = flow.strand.tell(flow.kept)
                self._record(flow, flow.view[shown])

    def end(self) -> None:
        """Write all, for nothing follows."""
        for flow in (self._current, *self._flows.values()):
            self._write(flow, last=True)

    def _write(self, flow: _Flow, *, last: bool = False) -> None:
        pieces, keep = flow.strand.take(flow.buffer, flow.filled, last=last)
        match pieces:
            case [slice() as whole]:
                self._record(flow, flow.view[whole])
            case [_, *_]:
                self._record(flow, join(flow.buffer, pieces))
        flow.kept = flow.filled - keep
        flow.view[: flow.kept] = flow.view[keep : flow.filled]
        flow.filled = flow.kept
        self._next_flush = time.monotonic() + _QUIET_S
        flow.tell_at = self._next_flush if flow.strand.tellable else math.inf

    def _record(self, flow: _Flow, data: memoryview | bytes) -> None:
        self._writer.output(flow.stream, data, flow.first_time_ns)
        if flow.stream is Stream.STDERR:
            self.complaint = (self.complaint + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]


def _room(fd: int) -> int:
    """How many bytes a pipe holds; nothing else has room that is known."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 0
