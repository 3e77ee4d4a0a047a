"""Where a log's bytes come from: the file that its runner writes, or a packed one in its place when it has ended.

    packed file = magic block*
    block       = raw length:u32 packed length:u32 zlib data      (little endian)

A log is packed into a file of its own, which is made durable before the other is removed: whoever looks finds one of
the two, and who has the old one open reads on in it.
"""

import bisect
import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

from services.execution.files import sync_directory

_MAGIC = b"BYPACK\x00\x01"
_BLOCK = struct.Struct("<II")
_BLOCK_BYTES = 1024 * 1024
_LEVEL = 3  # of zlib: half of what the best takes off, at ten times the speed


class LogFile(Protocol):
    """Bytes by their place."""

    def read(self, size: int, offset: int, *, wait: bool = True) -> memoryview:
        """Return at most `size` bytes, valid until the next call; none at the end.

        Raises:
            BlockingIOError: `wait` is False, and they would have to be fetched from the disk.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def packed_path(path: Path) -> Path:
    """Where the packed log of `path` is."""
    return path.with_name(f"{path.name}.packed")


def open_log(path: Path) -> LogFile:
    """Open a log, packed or not. Raises FileNotFoundError."""
    try:
        return _Plain(path)
    except FileNotFoundError:
        return _Packed(packed_path(path))


def pack(path: Path) -> None:
    """Pack a log that nobody writes any more, unless it is packed. Takes a second for 100 MB."""
    packed = packed_path(path)
    temporary = packed.with_name(f"{packed.name}.new")
    try:
        source = path.open("rb")
    except FileNotFoundError:
        return
    with source, temporary.open("wb") as target:
        temporary.chmod(0o600)
        target.write(_MAGIC)
        while raw := source.read(_BLOCK_BYTES):
            data = zlib.compress(raw, _LEVEL)
            target.write(_BLOCK.pack(len(raw), len(data)) + data)
        target.flush()
        os.fsync(target.fileno())
    temporary.rename(packed)
    sync_directory(path.parent)
    path.unlink()


class _Plain:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = memoryview(b"")

    def read(self, size: int, offset: int, *, wait: bool = True) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        try:
            count = os.preadv(self._fd, [self._buffer[:size]], offset, 0 if wait else os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise BlockingIOError(errno.EAGAIN, "this file system cannot tell what it has in memory") from error
        return self._buffer[:count]

    def close(self) -> None:
        os.close(self._fd)


class _Packed:
    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._starts: list[int] = []
        """Where blocks begin in the log, and with the same number in `_places` where they are in the file."""
        self._places: list[tuple[int, int]] = []
        self._block: tuple[int, bytes] = (-1, b"")
        self._file.seek(len(_MAGIC))
        raw_start = 0
        while len(header := self._file.read(_BLOCK.size)) == _BLOCK.size:
            raw, packed = _BLOCK.unpack(header)
            self._starts.append(raw_start)
            self._places.append((self._file.tell(), packed))
            self._file.seek(packed, os.SEEK_CUR)
            raw_start += raw

    def read(self, size: int, offset: int, *, wait: bool = True) -> memoryview:
        if not wait:
            raise BlockingIOError(errno.EAGAIN, "it is to be unpacked")
        found = b""
        while len(found) < size and (part := self._at(offset + len(found))):
            found += part
        return memoryview(found)[:size]

    def _at(self, offset: int) -> bytes:
        """The rest of the block at `offset`, of which at least one byte is wanted; nothing at the end."""
        number = bisect.bisect_right(self._starts, offset) - 1
        if number < 0:
            return b""
        if self._block[0] != number:
            place, length = self._places[number]
            self._file.seek(place)
            self._block = (number, zlib.decompress(self._file.read(length)))
        return self._block[1][offset - self._starts[number] :]

    def close(self) -> None:
        self._file.close()
