"""The event log of one execution: length-framed records in one file, written by its runner, read by anybody.

    file    = magic record*
    record  = length:u32 crc:u32 sequence:u64 time:i64 kind:u8 stream:u8 zero:u16 payload      (little endian)

`length` is the payload's, `crc` is the CRC-32 of everything after it, `time` is in nanoseconds since 1970. The payload
is raw bytes for output, and a JSON object for every other kind. A writer that was killed leaves at most one torn record
at the end; opening the log for writing cuts it off, and readers wait before it, for it was never whole.
"""

import contextlib
import enum
import errno
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from services.execution.logfiles import open_log
from services.execution.pagecache import PageCacheBound
from services.execution.redaction.strand import Redactor

MAX_OUTPUT = 64 * 1024
"""Bytes of output in one record, at most."""

_MAGIC = b"BYLOG\x00\x00\x01"
_HEADER = struct.Struct("<IIQqBBH")
_BODY = struct.Struct("<QqBBH")
_MAX_PAYLOAD = 1024 * 1024
_BLOCK = 1024 * 1024
_MAX_VECTORS = 512  # the kernel takes 1024


class Kind(enum.IntEnum):
    """What a record tells. Numbers are on disk: never change one."""

    OUTPUT = 1
    STATE_CHANGE = 2
    NOTE = 3
    TEXT = 4
    THINKING = 5
    TOOL_CALL = 6
    TOOL_RESULT = 7
    USAGE = 8
    TURN_END = 9
    PERMISSION_REQUEST = 11
    PERMISSION_ANSWER = 12
    MESSAGE_DELIVERED = 13
    VITALS = 10
    NETWORK_DECISION = 16


class Stream(enum.IntEnum):
    """Which stream of the program a record of output is from."""

    NONE = 0
    STDOUT = 1
    STDERR = 2


class EventLogError(Exception):
    """The file is not an event log, or a record in the middle of it is damaged."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event. `sequence` counts from 1 without gaps; `time_ns` is since 1970."""

    sequence: int
    time_ns: int
    kind: Kind
    stream: Stream
    payload: bytes

    def fields(self) -> dict[str, Any]:
        """The payload of any kind but output."""
        fields: dict[str, Any] = json.loads(self.payload)
        return fields


class EventWriter:
    """Appends records. There is one writer at a time: who writes holds the run's lock."""

    def __init__(self, path: Path) -> None:
        """Open or make the log, and cut off what a killed writer left unfinished.

        Raises:
            EventLogError: the file is something else.
        """
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._page_cache = PageCacheBound(self._fd)
        self.last_sequence = 0
        self.output_bytes = 0
        """Recorded so far, in this life or an earlier one."""
        self.redactor = Redactor()
        """Keeps secrets out of every event but output, which comes in pieces: the pump keeps them out of that."""
        try:
            self._repair()
        except BaseException:
            os.close(self._fd)
            raise

    def _repair(self) -> None:
        self.last_sequence = self.output_bytes = 0
        if os.fstat(self._fd).st_size < len(_MAGIC):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, _MAGIC, 0)
        with EventReader(self._path, verify=True) as reader:
            with contextlib.suppress(DamagedRecordError):  # a machine that lost power may leave more than a torn end
                while records := reader.read():
                    self.last_sequence = records[-1].sequence
                    self.output_bytes += sum(len(one.payload) for one in records if one.kind is Kind.OUTPUT)
            self._offset = reader.offset
        os.ftruncate(self._fd, self._offset)

    def output(self, stream: Stream, data: memoryview | bytes, time_ns: int) -> None:
        """Append output, as one record for each 64 KiB.

        Raises:
            OSError: it was not recorded, or only some first records of it; those are whole, and counted.
        """
        view = memoryview(data)
        pieces = [view[start : start + MAX_OUTPUT] for start in range(0, len(view), MAX_OUTPUT)]
        self._append(Kind.OUTPUT, stream, pieces, time_ns)

    def note(self, text: str, step: str = "") -> None:
        """Append a line for people."""
        self.fields(Kind.NOTE, text=text, **({"step": step} if step else {}))

    def state_change(self, state: str, reason: str = "", message: str = "") -> None:
        """Append that the execution is now in `state`."""
        self.fields(Kind.STATE_CHANGE, state=state, reason=reason, message=message)

    def fields(self, kind: Kind, **fields: object) -> None:
        """Append an event of any kind but output; fields are named as in the contract."""
        self._append(kind, Stream.NONE, [json.dumps(self.redactor.value(fields)).encode()], time.time_ns())

    def _append(self, kind: Kind, stream: Stream, payloads: Sequence[memoryview | bytes], time_ns: int) -> None:
        vectors: list[memoryview | bytes] = []
        sequence = self.last_sequence
        for payload in payloads:
            sequence += 1
            body = _BODY.pack(sequence, time_ns, kind, stream, 0)
            crc = zlib.crc32(payload, zlib.crc32(body))
            vectors += (_HEADER.pack(len(payload), crc, sequence, time_ns, kind, stream, 0), payload)
        try:
            end = self._write(vectors)
        except OSError:
            self._repair()  # not simply back to where we were: a reader may have seen the first of them
            raise
        self._offset, self.last_sequence = end, sequence
        self._page_cache.written(end)
        if kind is Kind.OUTPUT:
            self.output_bytes += sum(map(len, payloads))

    def _write(self, vectors: list[memoryview | bytes]) -> int:
        end = self._offset
        for start in range(0, len(vectors), _MAX_VECTORS):
            group = vectors[start : start + _MAX_VECTORS]
            size = sum(len(vector) for vector in group)
            written = os.pwritev(self._fd, group, end)
            if written < size:  # a disk that fills up takes a part, and says why only at the next write
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


class DamagedRecordError(EventLogError):
    """A whole record does not have the checksum that it was written with."""

    def __init__(self, path: Path, offset: int, sequence: int) -> None:
        super().__init__(f"{path} is damaged at byte {offset}, in event {sequence}")


class EventReader:
    """Reads records in order, at its own place in the file. Many readers may read while one writer writes."""

    def __init__(self, path: Path, *, verify: bool = False) -> None:
        """Open the log at its beginning. With `verify` each checksum is compared, not only each sequence.

        A log that is written, or was written to its end, is as its writer wanted it: only what a lost machine left
        needs to be verified, and the next writer does so before it goes on, or concludes.

        Raises:
            EventLogError: the file is something else.
            FileNotFoundError: nothing was written yet.
        """
        self._path = path
        self._verify = verify
        self._file = open_log(path)
        if not _MAGIC.startswith(self._file.read(len(_MAGIC), 0)):
            self._file.close()
            raise EventLogError(f"{path} is not an event log")
        self.offset = len(_MAGIC)
        """Where the next record begins."""
        self.next_sequence = 1
        """Which record that is."""

    def skip_to(self, sequence: int) -> bool:
        """Pass over records before `sequence`; False when the log ends before it, to be called again."""
        while self.next_sequence < sequence:
            block = self._file.read(_BLOCK, self.offset)
            before = self.offset
            for start, end in _frames(block):
                if self.next_sequence >= sequence:
                    break
                self.next_sequence = _HEADER.unpack_from(block, start)[2] + 1
                self.offset = before + end
            if self.offset == before:
                return False
        return True

    def read(self, size: int = _BLOCK, *, wait: bool = True) -> list[Record]:
        """Return the whole records among the next `size` bytes, at least one if there is one; empty at the end.

        Raises:
            DamagedRecordError: the next record was written, and then changed by something else.
            BlockingIOError: `wait` is False, and they would have to be fetched from the disk.
        """
        size = max(size, _HEADER.size)
        block = self._file.read(size, self.offset, wait=wait)
        if len(block) >= _HEADER.size:
            needed = _HEADER.size + _HEADER.unpack_from(block)[0]
            if size < needed <= _HEADER.size + _MAX_PAYLOAD:
                block = self._file.read(needed, self.offset, wait=wait)
        records: list[Record] = []
        base = self.offset
        for start, end in _frames(block):
            record = self._parse(block, start, end)
            if record is None:
                if not records:
                    raise DamagedRecordError(self._path, self.offset, self.next_sequence)
                break
            records.append(record)
            self.next_sequence = record.sequence + 1
            self.offset = base + end
        if block and not records and not wait:
            # Not the end: perhaps the rest of the record is on the disk only, or its writer is at it.
            raise BlockingIOError(errno.EAGAIN, "only the beginning of the next record is in memory")
        return records

    def _parse(self, block: memoryview, start: int, end: int) -> Record | None:
        _, crc, sequence, time_ns, kind, stream, _ = _HEADER.unpack_from(block, start)
        if sequence != self.next_sequence:
            return None
        payload = bytes(block[start + _HEADER.size : end])
        body = block[start + _HEADER.size - _BODY.size : start + _HEADER.size]
        if self._verify and zlib.crc32(payload, zlib.crc32(body)) != crc:
            return None
        return Record(sequence, time_ns, Kind(kind), Stream(stream), payload)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _frames(block: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Where the whole records of a block begin and end; one of an impossible length counts as whole, and damaged."""
    start = 0
    while start + _HEADER.size <= len(block):
        length = _HEADER.unpack_from(block, start)[0]
        end = start + _HEADER.size + min(length, _MAX_PAYLOAD)
        if end > len(block):
            return
        yield start, end
        start = end
