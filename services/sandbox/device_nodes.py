"""Device nodes for sandboxes that root starts.

The agent's uid outside is then root's, which owns the host's nodes: it could change the mode of /dev/null for the whole
machine. So it sees other nodes, which belong to nobody. They are in the host's /dev, the one place where device nodes
certainly work; a data file system may be mounted with nodev.
"""

import os
import secrets
import stat
from pathlib import Path

DIRECTORY = Path("/dev/boatyard")
"""Where the nodes are made, when the first sandbox starts after a boot."""

NAMES = ("null", "zero", "full", "random", "urandom", "tty")
"""The nodes of the host's /dev that bubblewrap shows."""

_NOBODY = 65534
_MODE = stat.S_IFCHR | 0o666


def nodes() -> dict[str, Path]:
    """Return the nodes by their names in a sandbox's /dev; none unless root runs the service.

    Raises:
        OSError: they cannot be made: this root lacks CAP_MKNOD, or /dev is not writable.
    """
    return {name: _node(name) for name in NAMES} if os.geteuid() == 0 else {}


def weakness() -> str | None:
    """Return what a sandbox lacks, for people, when they cannot be made; None when they can."""
    try:
        nodes()
    except OSError as error:
        return f"an agent can change the modes of the host's /dev/null and the like: {error}. Run the service as a user"
    return None


def _node(name: str) -> Path:
    path, device = DIRECTORY / name, (Path("/dev") / name).stat().st_rdev
    if not _is_right(path, device):
        DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        aside = DIRECTORY / f".{name}.{secrets.token_hex(6)}"
        os.mknod(aside, _MODE, device)
        try:
            aside.chmod(0o666)  # whatever the umask is
            os.chown(aside, _NOBODY, _NOBODY)
            aside.rename(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    return path


def _is_right(path: Path, device: int) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (found.st_mode, found.st_uid, found.st_rdev) == (_MODE, _NOBODY, device)
