"""Directories as they look to somebody else: copies of mounts in which root's files belong to another uid.

See mount_setattr(2), "ID-mapped mounts". Nothing on the disk is changed.
"""

import ctypes
import os
import struct
from pathlib import Path

# The same numbers on all architectures.
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOUNT_ATTR_IDMAP = 0x1, 0x0010_0000

_libc = ctypes.CDLL(None, use_errno=True)


def idmapped(directory: Path, namespace: int) -> int:
    """Return a descriptor of a copy, attached nowhere, of the mount at `directory`, mapped as a user namespace says.

    Raises OSError: the kernel is older than 5.12, or the file system cannot.
    """
    path = ctypes.c_char_p(os.fsencode(directory))
    copy = _call(_OPEN_TREE, _AT_FDCWD, path, _OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
        _call(_MOUNT_SETATTR, copy, ctypes.c_char_p(b""), _AT_EMPTY_PATH, attributes, len(attributes))
    except OSError:
        os.close(copy)
        raise
    return copy


def _call(number: int, *arguments: int | bytes | ctypes.c_char_p) -> int:
    passed = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
    answer: int = _libc.syscall(ctypes.c_long(number), *passed)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
