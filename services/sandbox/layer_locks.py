"""Locks on the layers of a workspace, beside them. A sandbox holds its lock exactly as long as it lives.

Two overlay mounts on one upper directory corrupt it, and the kernel allows them silently. So a sandbox that mounts
layers holds them exclusively; one that only binds what the host has mounted shares the lock, which keeps the files from
being removed meanwhile. Beside an upper directory `u` are

    u.lock      a named pipe, locked by flock(2)
    u.holder    how the last one that took the lock describes itself, for people

The lock's descriptor is passed to bubblewrap by --sync-fd, which keeps it in the namespace's init and in no other
process; so the kernel holds the lock, whoever is killed outside. Inside, /proc/1 is covered. Otherwise /proc/1/fd would
lead into the init: a descriptor of the upper directory leads out of the sandbox by its `..` (tried: to the host's
root), and a regular file would take writes that no limit counts. A pipe leads nowhere and stores nothing.

When a sandbox ends, the kernel closes the init's files a moment before the other processes have ended. So a lock that
was held before counts as free only when no process has the upper directory among its mounts.
"""

import contextlib
import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from services.sandbox.errors import HeldError

_PATIENCE_S = 2.0
"""How long to wait for a sandbox that is ending."""
_PAUSE_S = 0.02
# How the kernel escapes these in the options of a mount (fs/seq_file.c: seq_show_option).
_ESCAPED = str.maketrans({character: f"\\{ord(character):03o}" for character in ", \t\n\\"})


def acquire(upper: Path, holder: str, *, shared: bool, patience_s: float = _PATIENCE_S) -> int:
    """Return the descriptor that holds the layers with this upper directory; closing its last copy releases them.

    Blocks for up to `patience_s` while another holder is ending. `holder` describes the new holder, for people.

    Raises:
        HeldError: somebody else holds the layers; it says who.
        OSError: the parent directory of `upper` does not exist, or is not ours.
    """
    lock, note = _places(upper)
    descriptor = _open(lock)
    deadline = time.monotonic() + patience_s
    while not (_lock(descriptor, shared=shared) and (shared or not note.exists() or not is_mounted(upper))):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise HeldError(upper, held_by(upper) or "a sandbox that is ending")
        time.sleep(_PAUSE_S)
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    note.write_text(f"{holder or 'unnamed'} (started by process {os.getpid()} at {moment})")
    return descriptor


def was_ever_held(upper: Path) -> bool:
    """True when a sandbox has ever held these layers: only then can one hold them now."""
    return _places(upper)[0].exists()


def held_by(upper: Path) -> str | None:
    """Return how the holder of these layers describes itself, or None when nobody holds them."""
    lock, note = _places(upper)
    if not was_ever_held(upper):
        return None
    descriptor = _open(lock)
    try:
        # Exclusively: a shared lock would be granted beside a sharing holder.
        free = _lock(descriptor, shared=False)
    finally:
        os.close(descriptor)
    if free:
        return None
    with contextlib.suppress(FileNotFoundError):
        return note.read_text()
    return "unnamed"


def is_mounted(upper: Path) -> bool:
    """True when a process that we may inspect has an overlay on this upper directory among its mounts.

    Blocks for about 5 µs for each process of the host, and 50 µs for each mount namespace, other than our own.
    """
    wanted = str(upper).translate(_ESCAPED).encode(errors="surrogateescape")
    seen = {Path("/proc/self/ns/mnt").readlink()}
    for process in _processes():
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            namespace = (process / "ns" / "mnt").readlink()
            if namespace not in seen:
                mounts = (process / "mountinfo").read_bytes()
                seen.add(namespace)
                if any(_is_upper(option, wanted) for option in mounts.replace(b"\n", b",").split(b",")):
                    return True
    return False


def _processes() -> list[Path]:
    return [Path(entry.path) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _is_upper(option: bytes, wanted: bytes) -> bool:
    # bubblewrap mounts while the host's root is somewhere else, so the path has a prefix.
    return option.startswith(b"upperdir=") and option.endswith(wanted)


def _places(upper: Path) -> tuple[Path, Path]:
    return upper.with_name(f"{upper.name}.lock"), upper.with_name(f"{upper.name}.holder")


def _open(lock: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(lock, 0o600)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(lock, flags)
    except PermissionError:  # a process inside may have changed the mode of the pipe
        lock.chmod(0o600)
        return os.open(lock, flags)


def _lock(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
