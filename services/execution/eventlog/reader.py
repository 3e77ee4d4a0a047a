"""Reads an event log."""

import errno
import zlib
from pathlib import Path
from typing import Self

from services.execution.eventlog.logfiles import open_log
from services.execution.eventlog.records import (
    BODY,
    HEADER,
    MAGIC,
    MAX_PAYLOAD,
    DamagedRecordError,
    EventKind,
    EventLogError,
    Record,
    Stream,
    frames,
)

_BLOCK = 1024 * 1024


class EventReader:
    """Reads records in order, at its own position in the file. Many readers may read while one writer writes."""

    def __init__(self, path: Path, *, verify: bool = False) -> None:
        """Open the log at its beginning. With `verify`, each checksum is compared, and not only each sequence.

        Only a log that a lost machine left needs verifying, and the next writer does that before it appends anything;
        otherwise a log is as its writer meant it, whether it is still being written or not.

        Raises:
            EventLogError: the file is not an event log.
            FileNotFoundError: nothing has been written yet.
        """
        self._path = path
        self._verify = verify
        self._file = open_log(path)
        if not MAGIC.startswith(self._file.read(len(MAGIC), 0)):
            self._file.close()
            raise EventLogError(f"{path} is not an event log")
        self.offset = len(MAGIC)
        """Where the next record begins."""
        self.next_sequence = 1
        """The sequence of that record."""

    def skip_to(self, sequence: int) -> bool:
        """Skip the records before `sequence`; return False when the log ends before it, and may be called again."""
        while self.next_sequence < sequence:
            block = self._file.read(_BLOCK, self.offset)
            before = self.offset
            for start, end in frames(block):
                if self.next_sequence >= sequence:
                    break
                self.next_sequence = HEADER.unpack_from(block, start)[2] + 1
                self.offset = before + end
            if self.offset == before:
                return False
        return True

    def read(self, size: int = _BLOCK, *, wait: bool = True) -> list[Record]:
        """Return the complete records in the next `size` bytes, at least one if there is one; empty at the end.

        Raises:
            DamagedRecordError: the next record was changed by something else after it was written.
            BlockingIOError: `wait` is False, and the records would have to be fetched from the disk.
        """
        size = max(size, HEADER.size)
        block = self._file.read(size, self.offset, wait=wait)
        if len(block) >= HEADER.size:
            needed = HEADER.size + HEADER.unpack_from(block)[0]
            if size < needed <= HEADER.size + MAX_PAYLOAD:
                block = self._file.read(needed, self.offset, wait=wait)
        records: list[Record] = []
        base = self.offset
        for start, end in frames(block):
            record = self._parse(block, start, end)
            if record is None:
                if not records:
                    raise DamagedRecordError(self._path, self.offset, self.next_sequence)
                break
            records.append(record)
            self.next_sequence = record.sequence + 1
            self.offset = base + end
        if block and not records and not wait:
            # Not the end: the rest of the record may be on the disk only, or its writer may be writing it.
            raise BlockingIOError(errno.EAGAIN, "only the beginning of the next record is in memory")
        return records

    def _parse(self, block: memoryview, start: int, end: int) -> Record | None:
        _, crc, sequence, time_ns, kind, stream, _ = HEADER.unpack_from(block, start)
        if sequence != self.next_sequence:
            return None
        payload = bytes(block[start + HEADER.size : end])
        body = block[start + HEADER.size - BODY.size : start + HEADER.size]
        if self._verify and zlib.crc32(payload, zlib.crc32(body)) != crc:
            return None
        try:
            return Record(sequence, time_ns, EventKind(kind), Stream(stream), payload)
        except ValueError:  # no such kind or stream
            return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
