"""Room on the disk that a log has before it writes: a full disk stops a log, but not what is said at its end.

The file system sets blocks aside beyond the end of the file (fallocate(2)), which other programs cannot take. A file
system without that is asked how much is free, and the end of a log has no more room than anybody else.
"""

import os

from services.common.blocks import set_aside
from services.common.room import is_out_of_room

TAIL_BYTES = 1024 * 1024
"""What is always set aside for the last events of a run: more than it holds in pipes and buffers."""
FIRST_BYTES = 1024 * 1024
"""What a log may hold, however little is free: a few lines of a quiet program must not wait for somebody's flood."""
_STEP_BYTES = 4 * 1024 * 1024


class Allocation:
    """The blocks of one log's file, as of its only writer."""

    def __init__(self, fd: int, length: int, floor_bytes: int) -> None:
        """`length` is that of the log so far. Beyond its first MiB it grows only while `floor_bytes` stay free."""
        self._fd = fd
        self._floor_bytes = floor_bytes
        self._end = 0
        self._is_supported = True
        self._extend(max(length, FIRST_BYTES) + TAIL_BYTES)

    def allows(self, length: int) -> bool:
        """True when the log may grow to this length, with its tail set aside beyond it."""
        if length + TAIL_BYTES <= self._end:
            return True
        end = length + TAIL_BYTES + _STEP_BYTES
        status = os.fstatvfs(self._fd)
        if status.f_bavail * status.f_frsize - (end - self._end) < self._floor_bytes:
            return False
        return self._extend(end)

    def _extend(self, end: int) -> bool:
        if self._is_supported:
            try:
                set_aside(self._fd, end)
            except OSError as error:
                if is_out_of_room(error):
                    return False
                self._is_supported = False
        self._end = end
        return True


def begin(fd: int) -> None:
    """Set aside what a new log needs at least. Raises OSError when the disk has no room for it."""
    try:
        set_aside(fd, FIRST_BYTES + TAIL_BYTES)
    except OSError as error:
        if is_out_of_room(error):
            raise
