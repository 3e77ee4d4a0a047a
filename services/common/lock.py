"""Locks on files: they record which process holds them, and a crash cannot leave one behind."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import StartError
from services.common.room import is_out_of_room

_PID_BYTES = 32
_HEIRS_SECONDS: Final = 5.0


class LockHeldError(Exception):
    """Another process holds the lock; `pid` is what it has written into the file, None for nothing."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by process {pid or 'unknown'}")
        self.path = path
        self.pid = pid


class FileLock:
    """A lock that this process holds, with the holder's pid in the file for whoever finds it taken.

    The kernel releases it when the last process that has `descriptor` is gone, so a child that inherits it holds the
    lock for as long as it lives, even without its parent.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at once, or raise LockHeldError."""
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _written_pid(self.descriptor)
            os.close(self.descriptor)
            raise LockHeldError(path, pid) from None
        self.write_pid(os.getpid())

    def write_pid(self, pid: int) -> None:
        """Record another holder, such as a child. On a full disk the file may have no pid, but never a wrong one."""
        try:
            # Over what is there, which takes no room; a file that is emptied first has to find some again.
            os.pwrite(self.descriptor, f"{pid}\n".ljust(_PID_BYTES).encode(), 0)
        except OSError as error:
            os.ftruncate(self.descriptor, 0)
            if not is_out_of_room(error):
                raise

    def release(self) -> None:
        """Release the lock; a child that has the descriptor keeps holding it."""
        os.close(self.descriptor)


def take_over(path: Path) -> FileLock:
    """Take the lock; wait up to 5 s when its holder is dead, and raise LockHeldError when somebody has it still.

    A process that is killed while it starts another leaves it behind: until that begins its own program, it has all
    descriptors of the dead one, and so the lock. On a busy machine this takes some 10 ms.
    """
    deadline = time.monotonic() + _HEIRS_SECONDS
    while True:
        try:
            return FileLock(path)
        except LockHeldError as error:
            if error.pid is None or _is_alive(error.pid) or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


@contextmanager
def single_instance(
    path: Path, does: str, mend: str = "end it, or name another data directory by BOATYARD_HOME"
) -> Iterator[None]:
    """Hold the lock at `path` inside, so that only one process `does` something.

    Raises StartError when another process does it already, with its pid, and with how to `mend` that.
    """
    try:
        lock = take_over(path)
    except LockHeldError as error:
        raise StartError(f"process {error.pid or '(unknown)'} already {does}: {mend}") from None
    except OSError as error:
        raise StartError(f"cannot make {path}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """True when any process holds the lock at `path`. Does not take the lock, and makes no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: Path) -> int | None:
    """Return the pid that the lock's holder has written, or None when it has not, or nobody holds it."""
    if not is_held(path):
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _written_pid(descriptor)
    finally:
        os.close(descriptor)


def _written_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, _PID_BYTES, 0).strip()
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
