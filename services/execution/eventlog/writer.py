"""Writes an event log. Events for which the disk has no room wait in memory, in their order, until there is some."""

import contextlib
import errno
import json
import os
import time
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from services.common.room import is_out_of_room
from services.execution.eventlog.allocation import Allocation
from services.execution.eventlog.pagecache import PageCacheBound
from services.execution.eventlog.reader import EventReader
from services.execution.eventlog.records import BODY, HEADER, MAGIC, MAX_OUTPUT, DamagedRecordError, EventKind, Stream
from services.redaction.strand import Redactor

_MAX_VECTORS = 512  # the kernel takes 1024


class _Event(NamedTuple):
    """An event that waits for room."""

    kind: EventKind
    stream: Stream
    payload: bytes
    time_ns: int


class EventWriter:
    """Appends records. There is one writer at a time, which holds the run's lock."""

    def __init__(self, path: Path, floor_bytes: int = 0) -> None:
        """Open or make the log, and cut off what a killed writer left unfinished.

        A log of some size grows only while `floor_bytes` stay free on the disk.

        Raises:
            EventLogError: the file is not an event log.
        """
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._page_cache = PageCacheBound(self._fd)
        self._waiting: deque[_Event] = deque()
        self._waiting_since = 0.0
        self._is_ending = False
        self.last_sequence = 0
        self.output_bytes = 0
        """Bytes of output recorded so far, by this writer or earlier ones."""
        self.redactor = Redactor()
        """Keeps secrets out of every event but output; output comes in pieces, and the pump keeps them out of it."""
        try:
            self._repair()
            self._allocation = Allocation(self._fd, self._offset, floor_bytes)
        except BaseException:
            os.close(self._fd)
            raise

    def _repair(self) -> None:
        size = os.fstat(self._fd).st_size
        if size < len(MAGIC):
            os.pwrite(self._fd, MAGIC, 0)
        with EventReader(self._path, verify=True) as reader:
            # After a loss of power there may be more than a torn record at the end.
            with contextlib.suppress(DamagedRecordError):
                while records := reader.read():
                    self.last_sequence = records[-1].sequence
                    self.output_bytes += sum(
                        len(record.payload) for record in records if record.kind is EventKind.OUTPUT
                    )
            self._offset = reader.offset
        if size > self._offset:  # otherwise not: it would give up what is set aside beyond the end
            os.ftruncate(self._fd, self._offset)

    @property
    def is_waiting(self) -> bool:
        """True while the disk has no room for some events. Whoever makes more of them should wait too, and `push`."""
        return bool(self._waiting)

    def push(self) -> bool:
        """Record the events that wait, as far as there is room now; return True when none is left."""
        if not self._waiting:
            return True
        while self._waiting:
            event = self._waiting[0]
            if not self._record(event.kind, event.stream, [event.payload], event.time_ns):
                return False
            self._waiting.popleft()
        seconds = time.monotonic() - self._waiting_since
        self.note(f"the disk had no room for events for {seconds:.1f} s, in which nothing was read of the program")
        return True

    def end(self) -> None:
        """Use what is set aside from now on: what is appended next are the last events."""
        self._is_ending = True
        self.push()

    def give_up(self) -> int:
        """Drop the events that wait; return how many they are."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Append output, with one record for each 64 KiB."""
        view = memoryview(data)
        pieces = [view[start : start + MAX_OUTPUT] for start in range(0, len(view), MAX_OUTPUT)]
        self._append(EventKind.OUTPUT, stream, pieces, time_ns)

    def note(self, text: str, step: str = "") -> None:
        """Append a line for people."""
        self.fields(EventKind.NOTE, text=text, **({"step": step} if step else {}))

    def state_change(self, state: str, reason: str = "", message: str = "") -> None:
        """Append that the execution is now in `state`."""
        self.fields(EventKind.STATE_CHANGE, state=state, reason=reason, message=message)

    def fields(self, kind: EventKind, **fields: object) -> None:
        """Append an event of any kind but output; its fields have the contract's names."""
        self._append(kind, Stream.NONE, [json.dumps(self.redactor.value(fields)).encode()], time.time_ns())

    def _append(self, kind: EventKind, stream: Stream, payloads: Sequence[memoryview | bytes], time_ns: int) -> None:
        """Record events; those for which there is no room wait.

        Raises:
            OSError: the disk fails. None of them was recorded, or only the first; those are complete, and counted.
        """
        recorded = 0 if self._waiting else self._record(kind, stream, payloads, time_ns)
        if recorded < len(payloads):
            if not self._waiting:
                self._waiting_since = time.monotonic()
            # Copies: the caller uses its buffer again.
            self._waiting += [_Event(kind, stream, bytes(payload), time_ns) for payload in payloads[recorded:]]

    def _record(self, kind: EventKind, stream: Stream, payloads: Sequence[memoryview | bytes], time_ns: int) -> int:
        """Write records, each of them whole, while there is room; return how many."""
        vectors: list[memoryview | bytes] = []
        for sequence, payload in enumerate(payloads, start=self.last_sequence + 1):
            body = BODY.pack(sequence, time_ns, kind, stream, 0)
            crc = zlib.crc32(payload, zlib.crc32(body))
            vectors += (HEADER.pack(len(payload), crc, sequence, time_ns, kind, stream, 0), payload)
        size = sum(map(len, vectors))
        if not self._is_ending and not self._allocation.allows(self._offset + size):
            return 0
        written, error = self._write(vectors)
        count = len(payloads)
        if error is not None:
            # Not simply back to where it began: a reader may have seen the first of the new records.
            count, size = _whole(payloads, written)
            os.ftruncate(self._fd, self._offset + size)
        self._offset += size
        self.last_sequence += count
        if kind is EventKind.OUTPUT:
            self.output_bytes += sum(map(len, payloads[:count]))
        self._page_cache.written(self._offset)
        if error is not None and not is_out_of_room(error) and error.errno != errno.EFBIG:
            raise error
        return count

    def _write(self, vectors: list[memoryview | bytes]) -> tuple[int, OSError | None]:
        """Write at the end of the log; return how many bytes were written, and the error if those are not all."""
        end = self._offset
        try:
            for start in range(0, len(vectors), _MAX_VECTORS):
                group = vectors[start : start + _MAX_VECTORS]
                size = sum(len(vector) for vector in group)
                written = os.pwritev(self._fd, group, end)
                end += written
                if written < size:  # a disk that fills up takes a part; only the next write fails
                    rest = memoryview(b"".join(group))[written:]
                    while rest:
                        written = os.pwrite(self._fd, rest, end)
                        end += written
                        rest = rest[written:]
        except OSError as error:
            return end - self._offset, error
        return end - self._offset, None

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file, and give up what is set aside beyond its end."""
        self._page_cache.close()
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._offset)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _whole(payloads: Sequence[memoryview | bytes], written: int) -> tuple[int, int]:
    """Return how many of these records are whole within the bytes written of them, and how many bytes those have."""
    count = size = 0
    for payload in payloads:
        if size + HEADER.size + len(payload) > written:
            break
        count, size = count + 1, size + HEADER.size + len(payload)
    return count, size
