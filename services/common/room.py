"""Tells a disk without room from other troubles: it passes as soon as somebody makes room. Standard library only."""

import errno
import os
from pathlib import Path
from typing import Final

from services.common.errors import ServiceError

RESOURCE: Final = "resource"
DISK: Final = "disk"
"""What the metadata of an error has that a disk without room is the cause of: {RESOURCE: DISK}."""

_OUT_OF_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_LEAST_BYTES: Final = 64 * 1024


def is_out_of_room(error: BaseException | None) -> bool:
    """True when a disk that has no bytes or inodes left, or a quota that is used up, is the cause of an error."""
    if isinstance(error, ServiceError):
        return error.metadata.get(RESOURCE) == DISK
    return isinstance(error, OSError) and error.errno in _OUT_OF_ROOM


def has_no_room(path: Path) -> bool:
    """True when the disk of a file or directory has less than 64 KiB for this process, or no inodes."""
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _LEAST_BYTES or (status.f_files > 0 and status.f_favail == 0)
