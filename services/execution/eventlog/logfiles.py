"""Where a log's bytes come from: the file that its runner writes, or the packed one that replaces it after the end.

    packed file = magic block*
    block       = raw length:u32 packed length:u32 zlib data      (little endian)

A log is packed into a file of its own, which is made durable before the plain one is removed: whoever opens the log
finds one of the two, and whoever has the plain one open goes on reading it.
"""

import bisect
import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

from services.common.files import sync_directory

_MAGIC = b"BYPACK\x00\x01"
_BLOCK = struct.Struct("<II")
_BLOCK_BYTES = 1024 * 1024
_LEVEL = 3  # of zlib: saves half of what the best level saves, at ten times its speed


class LogFile(Protocol):
    """A log's bytes, read by their position."""

    def read(self, size: int, offset: int, *, wait: bool = True) -> memoryview:
        """Return at most `size` bytes, valid until the next call; none at the end.

        Raises:
            BlockingIOError: `wait` is False, and the bytes would have to be fetched from the disk.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def packed_path(path: Path) -> Path:
    """Return the path of the packed log of `path`."""
    return path.with_name(f"{path.name}.packed")


def open_log(path: Path) -> LogFile:
    """Open a log, packed or not. Raises FileNotFoundError."""
    try:
        return _Plain(path)
    except FileNotFoundError:
        return _Packed(packed_path(path))


def pack(path: Path) -> None:
    """Pack a log that is no longer written, unless it is packed already. Takes a second for 100 MB.

    Raises OSError when the disk has no room for the packed one; then there is the plain one alone, as before.
    """
    packed = packed_path(path)
    temporary = packed.with_name(f"{packed.name}.new")
    try:
        source = path.open("rb")
    except FileNotFoundError:
        return
    try:
        with source, temporary.open("wb") as target:
            temporary.chmod(0o600)
            target.write(_MAGIC)
            while raw := source.read(_BLOCK_BYTES):
                data = zlib.compress(raw, _LEVEL)
                target.write(_BLOCK.pack(len(raw), len(data)) + data)
            target.flush()
            os.fsync(target.fileno())
        temporary.rename(packed)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
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
        """Where each block begins in the log; `_blocks` has, at the same index, its (offset, length) in the file."""
        self._blocks: list[tuple[int, int]] = []
        self._block: tuple[int, bytes] = (-1, b"")
        self._file.seek(len(_MAGIC))
        raw_start = 0
        while len(header := self._file.read(_BLOCK.size)) == _BLOCK.size:
            raw, packed = _BLOCK.unpack(header)
            self._starts.append(raw_start)
            self._blocks.append((self._file.tell(), packed))
            self._file.seek(packed, os.SEEK_CUR)
            raw_start += raw

    def read(self, size: int, offset: int, *, wait: bool = True) -> memoryview:
        if not wait:
            raise BlockingIOError(errno.EAGAIN, "a packed log must be unpacked first")
        data = b""
        while len(data) < size and (part := self._block_from(offset + len(data))):
            data += part
        return memoryview(data)[:size]

    def _block_from(self, offset: int) -> bytes:
        """Return the block that holds `offset`, from there to its end; nothing at the end of the log."""
        number = bisect.bisect_right(self._starts, offset) - 1
        if number < 0:
            return b""
        if self._block[0] != number:
            position, length = self._blocks[number]
            self._file.seek(position)
            self._block = (number, zlib.decompress(self._file.read(length)))
        return self._block[1][offset - self._starts[number] :]

    def close(self) -> None:
        self._file.close()
