"""Writes an event log."""

import contextlib
import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from services.execution.eventlog.pagecache import PageCacheBound
from services.execution.eventlog.reader import EventReader
from services.execution.eventlog.records import BODY, HEADER, MAGIC, MAX_OUTPUT, DamagedRecordError, EventKind, Stream
from services.redaction.strand import Redactor

_MAX_VECTORS = 512  # the kernel takes 1024


class EventWriter:
    """Appends records. There is one writer at a time, which holds the run's lock."""

    def __init__(self, path: Path) -> None:
        """Open or make the log, and cut off what a killed writer left unfinished.

        Raises:
            EventLogError: the file is not an event log.
        """
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._page_cache = PageCacheBound(self._fd)
        self.last_sequence = 0
        self.output_bytes = 0
        """Bytes of output recorded so far, by this writer or earlier ones."""
        self.redactor = Redactor()
        """Keeps secrets out of every event but output; output comes in pieces, and the pump keeps them out of it."""
        try:
            self._repair()
        except BaseException:
            os.close(self._fd)
            raise

    def _repair(self) -> None:
        self.last_sequence = self.output_bytes = 0
        if os.fstat(self._fd).st_size < len(MAGIC):
            os.ftruncate(self._fd, 0)
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
        os.ftruncate(self._fd, self._offset)

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Append output, with one record for each 64 KiB.

        Raises:
            OSError: none of it was recorded, or only the first records; those are complete, and counted.
        """
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
        vectors: list[memoryview | bytes] = []
        sequence = self.last_sequence
        for payload in payloads:
            sequence += 1
            body = BODY.pack(sequence, time_ns, kind, stream, 0)
            crc = zlib.crc32(payload, zlib.crc32(body))
            vectors += (HEADER.pack(len(payload), crc, sequence, time_ns, kind, stream, 0), payload)
        try:
            end = self._write(vectors)
        except OSError:
            self._repair()  # not simply back to `_offset`: a reader may have seen the first of the new records
            raise
        self._offset, self.last_sequence = end, sequence
        self._page_cache.written(end)
        if kind is EventKind.OUTPUT:
            self.output_bytes += sum(map(len, payloads))

    def _write(self, vectors: list[memoryview | bytes]) -> int:
        end = self._offset
        for start in range(0, len(vectors), _MAX_VECTORS):
            group = vectors[start : start + _MAX_VECTORS]
            size = sum(len(vector) for vector in group)
            written = os.pwritev(self._fd, group, end)
            if written < size:  # a disk that fills up takes a part; only the next write fails
                rest = memoryview(b"".join(group))
                while written < size:
                    written += os.pwrite(self._fd, rest[written:], end + written)
            end += size
        return end

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        self._page_cache.close()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
