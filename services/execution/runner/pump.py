"""Moves what the program writes into the event log: a lone line at once, a flood in large records."""

import math
import os
import time

from services.execution.eventlog import MAX_OUTPUT, EventWriter, Stream

_BUFFER_BYTES = 256 * 1024
_QUIET_S = 0.025
_TAIL_BYTES = 2048


class Pump:
    """Collects output and writes it in the order in which it arrived, at most every 25 ms unless there is much."""

    def __init__(self, writer: EventWriter, limit: int) -> None:
        """`limit` is in bytes, over both streams; what exceeds it is read and dropped."""
        self._writer = writer
        self._limit = limit
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._filled = 0
        self._stream = Stream.NONE
        self._first_time_ns = 0
        self._next_flush = 0.0
        self.output_bytes = 0
        """Taken so far; all of it is recorded after `flush`."""
        self.exceeded = False
        """Whether the program wrote more than the limit."""
        self.last_output = time.monotonic()
        """When the program last wrote, on the monotonic clock."""
        self.complaint = b""
        """The end of what came on standard error."""

    def receive(self, fd: int, stream: Stream) -> int | None:
        """Read once from a non-blocking descriptor: how many bytes, 0 at the end, None when there is nothing now."""
        if self._filled and stream is not self._stream:
            self.flush()
        try:
            count = os.readv(fd, [self._buffer[self._filled :]])
        except BlockingIOError:
            return None
        if count == 0:
            return 0
        self.last_output = time.monotonic()
        if not self._filled:
            self._stream, self._first_time_ns = stream, time.time_ns()
        kept = min(count, self._limit - self.output_bytes)
        self.exceeded |= kept < count
        if stream is Stream.STDERR:
            end = self._filled + kept
            self.complaint = (self.complaint + bytes(self._buffer[max(0, end - _TAIL_BYTES) : end]))[-_TAIL_BYTES:]
        self.output_bytes += kept
        self._filled += kept
        if self._filled >= MAX_OUTPUT:
            self.flush()
        return count

    def drain(self, fd: int, stream: Stream) -> None:
        """Read all that is there by now."""
        while self.receive(fd, stream):
            pass

    def due(self) -> float:
        """When `flush` is to be called, on the monotonic clock; infinite while there is nothing."""
        return self._next_flush if self._filled else math.inf

    def flush(self) -> None:
        """Write what was collected."""
        if self._filled:
            self._writer.output(self._stream, self._buffer[: self._filled], self._first_time_ns)
            self._filled = 0
            self._next_flush = time.monotonic() + _QUIET_S
