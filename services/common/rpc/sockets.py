"""Unix sockets as addresses: `unix:` and an absolute path, in a directory that no other user of the machine can enter.

So whoever answers at such an address is the owner of the directory, or root, which a port says of nobody.

A socket's name has 107 bytes at most, and gRPC reads its addresses as URIs. Paths may be longer and have any character,
so gRPC gets them as a name in an open directory: unix:/proc/self/fd/7/git.sock.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from services.common.errors import StartError, Status, Unavailable
from services.common.lock import FileLock, LockHeldError

_SCHEME: Final = "unix:"


def is_socket(address: str) -> bool:
    """True for the address of a socket, and not for host:port."""
    return address.startswith(_SCHEME)


def socket_path(address: str) -> Path:
    """Return the path of a socket's address. Raises ValueError unless it is absolute and has a name."""
    path = Path(address.removeprefix(_SCHEME))
    if not (is_socket(address) and path.is_absolute() and path.name):
        raise ValueError("must be unix:PATH with an absolute path, such as unix:/srv/boatyard/run/git.sock")
    return path


class _Directory:
    """The directory of a socket, held open."""

    def __init__(self, path: Path, owners: Collection[int]) -> None:
        """Raises OSError, or StartError when other users can enter it, or it is none of the `owners`' (empty: all)."""
        self._descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_private(path, os.fstat(self._descriptor), owners)
        except StartError:
            self.close()
            raise

    def target(self, name: str) -> str:
        """Return gRPC's address of a socket in it."""
        return f"{_SCHEME}/proc/self/fd/{self._descriptor}/{name}"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ServedSocket:
    """A socket at which this process alone listens, until `close`. gRPC listens at `target`.

    A server that was killed leaves its socket behind; gRPC replaces it, and would replace that of a living server too.
    Hence the lock beside it, which ends with the process that holds it.
    """

    def __init__(self, address: str) -> None:
        """Raises StartError when another process listens there, or other users can enter the directory."""
        path = socket_path(address)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = _Directory(path.parent, (os.geteuid(),))
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}") from error
        try:
            self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        except LockHeldError as error:
            self._directory.close()
            raise StartError(f"cannot listen on {address}: process {error.pid or '(unknown)'} does") from None
        self.target = self._directory.target(path.name)

    def close(self) -> None:
        """Let another process listen. gRPC has removed the socket when its server has stopped."""
        self._directory.close()
        self._lock.release()


class CalledSocket:
    """A socket that a client calls until `close`, also when its server is replaced. gRPC calls `target`."""

    def __init__(self, address: str) -> None:
        """Raises Unavailable when there is no such directory, StartError when other users can enter it.

        Root may call anybody's services, but serves in a directory of its own alone.
        """
        path = socket_path(address)
        try:
            self._directory = _Directory(path.parent, (os.geteuid(),) if os.geteuid() else ())
        except OSError as error:
            raise Unavailable(Status.UNAVAILABLE.value, f"nothing serves at {address}: {error.strerror}") from error
        self.target = self._directory.target(path.name)

    def close(self) -> None:
        """Release the directory."""
        self._directory.close()


def _check_private(path: Path, found: os.stat_result, owners: Collection[int]) -> None:
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise StartError(
            f"{path} is accessible to other users, who could pose as a service there: chmod 700 {path}, or name a"
            " socket in a directory of its own"
        )
    if owners and found.st_uid not in owners:
        raise StartError(f"{path} belongs to user {found.st_uid}: use it as that user")
