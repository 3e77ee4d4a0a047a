"""Sets blocks of a file system aside for a file, which no other program can take then. Standard library only."""

import ctypes
import errno
import os

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE

_libc = ctypes.CDLL(None, use_errno=True)


def set_aside(fd: int, length: int) -> None:
    """Let a file have blocks for this length, whatever its length is now, until it is cut.

    Raises OSError: also where the file system sets nothing aside.
    """
    while _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
