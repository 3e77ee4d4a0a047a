"""What a machine may run short of for a while: its failures are nobody's fault, and the next call may succeed."""

import errno
from typing import Final

_SHORTAGES: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_THREAD: Final = "can't start new thread"
"""Python's words, without a class of their own."""


def is_shortage(error: BaseException) -> bool:
    """True when an error says that there was no process, thread, descriptor or memory left."""
    if isinstance(error, OSError):
        return error.errno in _SHORTAGES
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_THREAD in str(error))
