"""Uids of the host for agents, where root runs the service: an agent that has root's uid outside is root to many files.

A workspace made for sandboxes has a uid of its own, and a sandbox has that of whoever owns the directory that it works
in. So nothing has to be recorded or told: a workspace made before, or by somebody else, is served as it always was.

bubblewrap is started as that uid, which may enter none of our directories. So a shell opens its program and its library
before, and it gets a user namespace in which root has a number too: while it mounts, it has root's way through
directories there, and the agent has no rights in it afterwards.
"""

import os
import stat
from pathlib import Path
from typing import Final

from services.sandbox import bubblewrap, user_namespaces
from services.sandbox.environment import host_program
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import Mount, Overlay, SandboxSpec, Tier

ALL = range(0x7000_0000, 0x7FFE_0000)
"""The uids that agents may have: systemd's list (UIDS-GIDS.md) has nobody who uses them."""

NOT_ROOT: Final = "the service does not run as root"
"""Why agents have the service's uid where that is no loss."""

# One digit each: a shell opens and closes no others. All other descriptors of a sandbox are above them.
_NAMESPACE, _PROGRAM, _LIBRARY = 7, 8, 9
CLOSING = f"exec {_NAMESPACE}<&- {_PROGRAM}<&- {_LIBRARY}<&-"
"""What a shell in the sandbox does first: bubblewrap leaves these open."""

_BEGIN = f'exec {_NAMESPACE}<"$1" {_PROGRAM}<"$2" && shift 2'
_PRELOAD = f'exec {_LIBRARY}<"$1" && shift && export LD_PRELOAD=/proc/self/fd/{_LIBRARY}'


def of(spec: SandboxSpec) -> int | None:
    """Return the uid that a sandbox has outside; None for the service's own."""
    if os.geteuid() != 0 or spec.tier is not Tier.BUBBLEWRAP:
        return None
    places = [place for mount in spec.mounts if (place := _place(mount, spec.cwd)) is not None]
    return None if not places else owner(places[-1])


def owner(directory: Path) -> int | None:
    """Return the uid of the agents that work in a directory; None for the service's own."""
    try:
        uid = directory.stat().st_uid
    except OSError:  # whoever mounts it says more about it
        return None
    return uid if uid in ALL else None


def started_as(uid: int, argv: list[bytes]) -> list[bytes]:
    """Return the arguments that become bubblewrap with the arguments `argv`, as `uid`. Blocks for some 3 ms, once.

    Raises SandboxUnavailableError.
    """
    namespace = user_namespaces.of_agent(uid)
    opened = [b"/proc/%d/fd/%d" % (os.getpid(), namespace), bytes(bubblewrap.program())]
    libraries = [bytes(path) for path in bubblewrap.libraries()]
    script = " && ".join([_BEGIN, *(_PRELOAD for _ in libraries), 'exec "$@"']).encode()
    become = (b"--reuid=%d" % uid, b"--regid=%d" % uid, b"--clear-groups", b"--", b"/proc/self/fd/%d" % _PROGRAM)
    return [b"/bin/sh", b"-c", script, b"sh", *opened, *libraries, _setpriv(), *become, *argv[1:]]


def namespace_arguments() -> tuple[str, ...]:
    """Return bubblewrap's arguments for the namespace that it is started with."""
    return ("--userns", str(_NAMESPACE))


def give(fd: int, uid: int | None) -> None:
    """Let a process of `uid` open the pipe or terminal behind a descriptor again, as it does by /dev/stdout."""
    if uid is not None and (stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd)):
        os.fchown(fd, uid, -1)


def _place(mount: Mount | Overlay, cwd: Path) -> Path | None:
    """Return where the host has what a sandbox sees at `cwd`, if this mount shows it."""
    if isinstance(mount, Mount):
        target, place = mount.target or mount.source, mount.source
    elif mount.mounted is not None:
        target, place = mount.target, mount.mounted
    else:
        return None
    return place if cwd.is_relative_to(target) else None


def _setpriv() -> bytes:
    found = host_program("setpriv")
    if found is None:
        raise SandboxUnavailableError("There is no setpriv, which gives agents uids", "apt-get install util-linux")
    return os.fsencode(found)
