"""Recordings of what agents ask models, and are answered: their form, and how they are packed to be sent.

A recording is lines of JSON (docs/recordings.md describes them). The same conversation is in it again with each
request, so packing makes it many times smaller.
"""

import enum
import lzma
from collections.abc import Iterator, Mapping
from typing import Any, Final

from services.common.untrusted_json import parse_json

VERSION: Final = 1
MOST_BYTES: Final = 64 << 20
"""The most that a recording may have."""
MOST_PACKED_BYTES: Final = 2 << 20
"""The most that one may have to go with a job."""

_MARK: Final = b"\xfd7zXZ\x00"
_UNPACKING_BYTES: Final = 96 << 20  # of memory
_PIECE: Final = 1 << 20
_HEAD_BYTES: Final = 64 << 10


class Matching(enum.StrEnum):
    """How the answer to a request is found in a recording."""

    STRICT = "STRICT"
    ORDER = "ORDER"


class RecordingError(Exception):
    """Something is no recording, or none that can be used; the text says what is wrong with it."""


def packed(recording: bytes) -> bytes:
    """Pack a recording to be sent. Raises RecordingError."""
    if len(recording) > MOST_BYTES:
        raise RecordingError(f"has more than {MOST_BYTES >> 20} MiB")
    check(recording)
    small = recording if recording.startswith(_MARK) else lzma.compress(recording, check=lzma.CHECK_CRC32, preset=4)
    if len(small) > MOST_PACKED_BYTES:
        raise RecordingError(f"has more than {MOST_PACKED_BYTES >> 20} MiB, packed as it is sent")
    return small


def unpacked(recording: bytes) -> Iterator[bytes]:
    """Yield a recording in pieces, whether it is packed or not. Raises RecordingError."""
    if not recording.startswith(_MARK):
        yield recording
        return
    unpacker, total = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_UNPACKING_BYTES), 0
    try:
        piece = unpacker.decompress(recording, _PIECE)
        while piece or not unpacker.eof:
            total += len(piece)
            if total > MOST_BYTES:
                raise RecordingError(f"has more than {MOST_BYTES >> 20} MiB")
            if not piece and unpacker.needs_input:
                raise RecordingError("is cut off")
            yield piece
            piece = b"" if unpacker.eof else unpacker.decompress(b"", _PIECE)
    except (lzma.LZMAError, MemoryError) as error:
        raise RecordingError("is packed in a way that cannot be read") from error


def check(recording: bytes) -> None:
    """Check that this begins as a recording does, of a version that is understood. Raises RecordingError."""
    head_of(next(unpacked(recording), b"").partition(b"\n")[0])


def head_of(line: bytes) -> Mapping[str, Any]:
    """Read the first line of a recording. Raises RecordingError."""
    try:
        head = parse_json(line) if len(line) <= _HEAD_BYTES else None
    except ValueError:
        head = None
    version = head.get("recording") if isinstance(head, dict) else None
    if not isinstance(head, dict) or type(version) is not int:
        raise RecordingError('is no recording: those begin with a line such as {"recording": 1, …}')
    if version > VERSION:
        raise RecordingError(f"is a recording of version {version}, and this program knows none above {VERSION}")
    return head
