"""What an event log holds, and the format of its file.

    file    = magic record*
    record  = length:u32 crc:u32 sequence:u64 time:i64 kind:u8 stream:u8 zero:u16 payload      (little endian)

`length` is that of the payload, `crc` the CRC-32 of all that follows it, `time` in nanoseconds since 1970. The payload
is raw bytes for output, and a JSON object for every other kind.
"""

import enum
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_OUTPUT = 64 * 1024
"""The most bytes of output in one record."""

MAGIC = b"BYLOG\x00\x00\x01"
HEADER = struct.Struct("<IIQqBBH")
BODY = struct.Struct("<QqBBH")
"""The part of the header that the checksum covers."""
MAX_PAYLOAD = 1024 * 1024


class EventKind(enum.IntEnum):
    """What a record is about. The numbers are on disk: never change one."""

    OUTPUT = 1
    STATE_CHANGE = 2
    NOTE = 3
    TEXT = 4
    THINKING = 5
    TOOL_CALL = 6
    TOOL_RESULT = 7
    USAGE = 8
    TURN_END = 9
    VITALS = 10
    PERMISSION_REQUEST = 11
    PERMISSION_ANSWER = 12
    MESSAGE_DELIVERED = 13
    NETWORK_DECISION = 16
    ASK = 17
    ASK_END = 18


class Stream(enum.IntEnum):
    """The stream of the program that a record of output is from."""

    NONE = 0
    STDOUT = 1
    STDERR = 2
    RAW = 3
    """Standard output whose lines are read: the events that follow say what they mean."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event. `sequence` counts from 1 without gaps; `time_ns` is since 1970."""

    sequence: int
    time_ns: int
    kind: EventKind
    stream: Stream
    payload: bytes

    def fields(self) -> dict[str, Any]:
        """Return the payload of an event of any kind but output."""
        fields: dict[str, Any] = json.loads(self.payload)
        return fields


class EventLogError(Exception):
    """The file is not an event log, or a record in the middle of it is damaged."""


class DamagedRecordError(EventLogError):
    """A complete record is not as it was written: its checksum, sequence, kind or stream is wrong."""

    def __init__(self, path: Path, offset: int, sequence: int) -> None:
        super().__init__(f"{path} is damaged at byte {offset}, in event {sequence}")


def frames(block: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Yield where complete records of a block begin and end; one of an impossible length counts, as a damaged one."""
    start = 0
    while start + HEADER.size <= len(block):
        length = HEADER.unpack_from(block, start)[0]
        end = start + HEADER.size + min(length, MAX_PAYLOAD)
        if end > len(block):
            return
        yield start, end
        start = end
