"""Bounds on what the kernel counts for each user of the host, for a sandbox whose uid outside is also ours.

Otherwise one agent uses up the inotify instances and the queued signals of all that its uid runs, the service among it.
The counts of a user namespace are also those of each one above it, and whoever makes a namespace may bound it. So there
is one more above those of bubblewrap, made by programs that become bubblewrap in the end: a process of the sandbox has
no rights there, and so cannot raise the bounds.
"""

import os
import resource
from pathlib import Path

from services.sandbox.environment import host_program

_COUNTED = ("max_inotify_instances", "max_inotify_watches", "max_fanotify_groups", "max_fanotify_marks")
_SHARE = 8
"""A sandbox may use one part in so many of what the host allows a user."""

_PROGRAMS = ("prlimit", "unshare")
_USER, _RESTRICTED = Path("/proc/sys/user"), Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


def bounded(argv: list[bytes]) -> list[bytes]:
    """Return the arguments that bound what is counted for a user and become `argv`; `argv` where that does not work."""
    if weakness() is not None:
        return argv
    prlimit, unshare = (os.fsencode(path) for path in map(host_program, _PROGRAMS) if path is not None)
    bounds = [f"echo {limit} >{_USER / name}" for name, limit in limits().items()]
    script = " && ".join([*bounds, 'exec "$@"']).encode()
    signals = b"--sigpending=%d" % pending_signals()
    return [prlimit, signals, unshare, b"--user", b"--map-root-user", b"/bin/sh", b"-c", script, b"sh", *argv]


def limits() -> dict[str, int]:
    """Return the bounds of a sandbox, by their names in /proc/sys/user, as far as this kernel has them."""
    paths = [_USER / name for name in _COUNTED]
    return {path.name: max(1, int(path.read_text()) // _SHARE) for path in paths if path.exists()}


def pending_signals() -> int:
    """Return how many signals may be queued in a sandbox."""
    soft, _ = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    return 1 << 13 if soft == resource.RLIM_INFINITY else max(1, soft // _SHARE)


def weakness() -> str | None:
    """Return what the sandboxes lack, for people, when the bounds cannot be set; None when they can."""
    problem = "an agent can use up the inotify instances and queued signals of all that runs as this user"
    if None in map(host_program, _PROGRAMS):
        return f"{problem}: apt-get install util-linux"
    if os.geteuid() != 0 and _RESTRICTED.exists() and _RESTRICTED.read_text().strip() != "0":
        return f"{problem}: run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root"
    return None
