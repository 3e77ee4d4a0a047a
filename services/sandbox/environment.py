"""The part of the host that every sandbox has: its paths, and the environment that programs expect."""

import functools
import shutil
import sys
from pathlib import Path

HOME = Path("/home/agent")
"""The private home inside a sandbox."""

SECRETS = Path("/tmp/.boatyard/secrets")  # noqa: S108 - the sandbox's own, in memory, as a HOME need not be
SECRETS_VARIABLE = "BOATYARD_SECRETS_DIR"
"""Where an agent's secrets are as files inside, if it has any, and the variable that tells it."""

HOSTNAME = "boatyard"
"""The host name inside."""

HOSTS = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n"
"""The contents of /etc/hosts inside."""

RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n"
"""The contents of /etc/resolv.conf inside, if there is a network: whoever provides that is asked for names."""

USR = Path("/usr")
_SYSTEM_PATH = (Path("/usr/local/bin"), Path("/usr/bin"), Path("/bin"), Path("/usr/local/sbin"), Path("/usr/sbin"))
_HOSTS_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@functools.cache
def interpreter_prefixes() -> tuple[Path, ...]:
    """Return the directories of the running interpreter outside of /usr: its own, and its virtual environment's."""
    prefixes = dict.fromkeys(Path(prefix).resolve() for prefix in (sys.base_prefix, sys.prefix))
    return tuple(prefix for prefix in prefixes if not prefix.is_relative_to(USR) and prefix != Path("/"))


def host_program(name: str) -> str | None:
    """Return a program of the host's system, whatever our own PATH is; None where it is not installed."""
    return shutil.which(name, path=_HOSTS_PATH)


def search_path() -> tuple[Path, ...]:
    """Return the directories of PATH inside: our interpreter's, if it is outside of /usr, then the system's.

    The virtual environment is left out: its programs are ours, not the agent's.
    """
    base = Path(sys.base_prefix).resolve()
    return ((base / "bin",) if base in interpreter_prefixes() else ()) + _SYSTEM_PATH


def base() -> dict[str, bytes]:
    """Return HOME, PATH, LANG, TMPDIR and the like, as a sandboxed program expects them."""
    return {
        "HOME": bytes(HOME),
        "LANG": b"C.UTF-8",
        "LOGNAME": b"agent",
        "PATH": b":".join(bytes(directory) for directory in search_path()),
        "SHELL": b"/bin/sh",
        "TMPDIR": b"/tmp",
        "USER": b"agent",
    }
