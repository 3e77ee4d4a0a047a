"""Who has the layers of a workspace: a lock beside them that a sandbox holds exactly as long as it lives.

Two overlay mounts on one upper directory corrupt it, and the kernel allows them in silence. So whoever mounts layers
holds them alone; who only binds what the workspace service has mounted shares them, and nobody takes the files away
meanwhile. Beside an upper directory `u` lie

    u.lock      a named pipe, locked by flock(2)
    u.holder    what the last one to take the lock said of itself, for people

The lock's descriptor is handed to bubblewrap by --sync-fd, which keeps it in the namespace's init and in no other
process; so the kernel holds the lock whoever outside is killed. Inside, /proc/1 is covered; were it not, /proc/1/fd
would lead into the init: a descriptor of the upper directory out of the sandbox by its `..` (tried: it did, to the
host's root), and a regular file would take writes that no limit counts. A pipe leads nowhere and keeps nothing.

At its end the kernel closes the init's files a moment before it has ended the others. So a lock that was held before
counts as free only when no process is left in whose mounts the upper directory stands.
"""

import contextlib
import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from services.sandbox.errors import HeldError

_PATIENCE_S = 2.0
"""How long a sandbox that is ending is waited for."""
_PAUSE_S = 0.02
# How the kernel writes these in the options of a mount (fs/seq_file.c: seq_show_option).
_ESCAPED = str.maketrans({character: f"\\{ord(character):03o}" for character in ", \t\n\\"})


def acquire(upper: Path, holder: str, *, shared: bool, patience_s: float = _PATIENCE_S) -> int:
    """Return the descriptor that holds the layers with this upper directory; closing its last copy lets go of them.

    Blocks for up to `patience_s` while another holder is ending. `holder` says who asks, in a few words for people.

    Raises:
        HeldError: somebody has the layers; it says who.
        OSError: the directory that `upper` lies in is not there, or not ours.
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
    """True when any sandbox has had these layers: only then can one have them now."""
    return _places(upper)[0].exists()


def held_by(upper: Path) -> str | None:
    """Return what the holder of these layers said of itself, or None when nobody holds them."""
    lock, note = _places(upper)
    if not was_ever_held(upper):
        return None
    descriptor = _open(lock)
    try:
        # Shared, where that is refused; a holder that shares refuses only those who want it alone.
        free = _lock(descriptor, shared=False)
    finally:
        os.close(descriptor)
    if free:
        return None
    with contextlib.suppress(FileNotFoundError):
        return note.read_text()
    return "unnamed"


def is_mounted(upper: Path) -> bool:
    """True when any process that we may look into has an overlay on this upper directory among its mounts.

    Blocks for some 5 µs a process of the host, and 50 µs a mount namespace. Our own namespace is not looked at.
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
    # bubblewrap mounts from where it has put the host's root meanwhile, so the path has something before it.
    return option.startswith(b"upperdir=") and option.endswith(wanted)


def _places(upper: Path) -> tuple[Path, Path]:
    return upper.with_name(f"{upper.name}.lock"), upper.with_name(f"{upper.name}.holder")


def _open(lock: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(lock, 0o600)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(lock, flags)
    except PermissionError:  # whoever was inside may have changed the mode of the pipe that it saw
        lock.chmod(0o600)
        return os.open(lock, flags)


def _lock(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
