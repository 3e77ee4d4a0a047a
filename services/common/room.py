"""Tells a disk without room from other troubles: it passes as soon as somebody makes room. Standard library only."""

import errno
import os
from pathlib import Path
from typing import Final

from services.common.errors import ServiceError

RESOURCE: Final = "resource"
DISK: Final = "disk"
INODES: Final = "inodes"
"""What the metadata of an error has whose cause is a disk without room: {RESOURCE: DISK} or {RESOURCE: INODES}."""
DISK_FULL: Final = "DISK_FULL"
"""The reason for which calls, executions and jobs fail for lack of room."""

_OUT_OF_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_WORDS: Final = tuple(os.strerror(code).casefold() for code in _OUT_OF_ROOM)
_NAMESPACE: Final = "namespace"  # the kernel has the same error for too many of them
_LEAST_BYTES: Final = 64 * 1024


def is_out_of_room(error: BaseException | None) -> bool:
    """True when a disk that has no bytes or inodes left, or a quota that is used up, is the cause of an error."""
    if isinstance(error, ServiceError):
        return error.reason == DISK_FULL or error.metadata.get(RESOURCE) in {DISK, INODES}
    return isinstance(error, OSError) and error.errno in _OUT_OF_ROOM


def tells_of_no_room(complaint: str) -> bool:
    """True when a program says that a disk has no bytes or inodes left, or a quota is used up."""
    folded = complaint.casefold()
    return any(words in folded for words in _WORDS) and _NAMESPACE not in folded


def has_no_room(path: Path) -> bool:
    """True when the disk of a file or directory has less than 64 KiB for this process, or no inodes."""
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _LEAST_BYTES or (status.f_files > 0 and status.f_favail == 0)
