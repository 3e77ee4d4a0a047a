"""Device nodes for sandboxes that root starts.

To an agent, whose uid is root's outside then, the host's own nodes would be its own: it could change the mode of
/dev/null for the whole machine. So it is shown others, that belong to nobody. They lie in the host's /dev, the one
place where device nodes surely work; a file system of data may be mounted without.
"""

import os
import secrets
import stat
from pathlib import Path

DIRECTORY = Path("/dev/boatyard")
"""Where the nodes are made, at the first start of a sandbox after the host's own start."""

NAMES = ("null", "zero", "full", "random", "urandom", "tty")
"""What bubblewrap shows of the host's /dev."""

_NOBODY = 65534
_MODE = stat.S_IFCHR | 0o666


def nodes() -> dict[str, Path]:
    """The nodes by their names in a sandbox's /dev; none for a service that is not root's, which needs none.

    Raises:
        OSError: they cannot be made: this root has no right to (CAP_MKNOD), or /dev cannot be written to.
    """
    return {name: _node(name) for name in NAMES} if os.geteuid() == 0 else {}


def weakness() -> str | None:
    """What a sandbox lacks where they cannot be made, for people; None where they can."""
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
