"""The container tier: what an engine is told to make for a spec, and what the container does first.

An engine's client is not a parent of what it starts, and what it reports of the end (exit codes 125 to 127, a broken
stream) may be its own or the program's. So it only makes, starts and removes containers. All else goes through a
directory of ours, which the container sees read-only at CONTAINER_DIRECTORY; named pipes in it are writable all the
same. The container's init is a shell of the image that runs `begin`:

    begin    what it does: see `script`
    out err  the program's standard output and error
    in       its standard input, unless that is /dev/null
    status   where it writes BEGAN, and at last the counts of KILLED and REFUSED, and ENDED with its exit code
    life     where it waits for a line before it begins; only we hold the other end, so that it ends with us

The engine gives it no network but a loopback. Whoever starts it provides the way out, before it begins.

Neither the program's arguments nor its environment are passed to the engine, which would record them.
"""

import csv
import io
import os
import resource
import shlex
from collections.abc import Iterator
from pathlib import Path

from services.sandbox import environment, rlimits, shared_uid
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import Container, Limits, Mount, MountAccess, Network, Overlay, SandboxSpec

CONTAINER_DIRECTORY = Path("/run/boatyard")
"""Where a container sees our directory for it."""

PIPES = ("out", "err", "in", "status", "life")
"""The named pipes in that directory."""

FILES = {"hosts": environment.HOSTS, "resolv.conf": environment.RESOLV_CONF}
"""The files in that directory that are in /etc of a container with a network: engines copy the machine's."""

BEGAN = b"began"
ENDED = b"ended"

KILLED = (b"memory.events oom_kill", b"memory.oom_control oom_kill")
"""What precedes, in the status, the number of its processes that the kernel has killed for lack of memory."""

REFUSED = (b"pids.events max",)
"""The same for the number of processes that it was refused."""

UID = 1000
"""The uid and gid inside when the engine runs as us; in a rootful one we keep our own numbers."""

_LABEL = "dev.boatyard.execution"
# File systems in memory are mounted without an owner of ours, whose number may be another's inside.
_SCRATCH = "rw,exec,nosuid,nodev,mode=1777"
# Two processes of the container are ours: its init, and the one that ends it with us. The rest leaves room for our own
# check, which gives the reason; the engine's limit takes effect when many come at once.
_SPARE_PROCESSES = 32

# The container's own control group, in versions 2 and 1: it vanishes with the container, so it is read inside.
_COUNTERS = tuple(
    f"/sys/fs/cgroup/{name}"
    for name in ("memory.events", "pids.events", "memory/memory.oom_control", "pids/pids.events")
)

# One process of the container waits for our end. It ignores signals that ask it to end, and its `kill -1` reaches all
# but itself and the init.
_BEGIN = """\
exec 1>{desk}/out 2>{desk}/err 3<{desk}/life 4>{desk}/status 0<{input}
echo {began} >&4
read -r _ <&3 || exit 1
( trap '' HUP INT QUIT TERM; exec 0</dev/null 1>&0 2>&0 4>&0; read -r _ <&3; kill -KILL -1 ) &
{exports}
cd {cwd} && {command} 3<&- 4>&-
code=$?
for file in {counters}; do
    [ -r $file ] && while read -r word count; do echo "${{file##*/}} $word $count" >&4; done <$file
done
echo {ended} $code >&4
"""


def of(spec: SandboxSpec) -> Container:
    """Return the spec's container. Raises ValueError when it has none."""
    if spec.container is None:
        raise ValueError("tier container needs to know its engine and its image")
    return spec.container


def script(spec: SandboxSpec, *, has_input: bool) -> bytes:
    """Return the script of the container's init: in POSIX shell, because the shell is the image's."""
    # Processes are counted by user, and containers may share one: that limit is left to the engine.
    own = spec.limits
    bounds = Limits(open_files=own.open_files, cpu_seconds=own.cpu_seconds, file_size_bytes=own.file_size_bytes)
    usual = environment.base()
    exports = (
        f"export {name}={_quoted(value)}"
        for name, value in spec.environment.items()
        if name != "PATH" or value != usual["PATH"]  # the image knows where its programs are
    )
    text = _BEGIN.format(
        desk=CONTAINER_DIRECTORY,
        input=f"{CONTAINER_DIRECTORY}/in" if has_input else os.devnull,
        began=BEGAN.decode(),
        ended=ENDED.decode(),
        counters=" ".join(_COUNTERS),
        exports="\n".join(exports),
        cwd=shlex.quote(str(spec.cwd)),
        command=" ".join(_quoted(part) for part in rlimits.launcher(spec.argv, bounds)),
    )
    return text.encode(errors="surrogateescape")


def creation(spec: SandboxSpec, engine: Engine, name: str, desk: Path, execution_id: str) -> Iterator[str]:
    """Yield the arguments for the engine's client that make a container called `name`.

    Raises:
        SandboxUnavailableError: the spec asks for what no container here can have.
    """
    made = of(spec)
    yield from ("create", "--name", name)
    yield from _options(spec, engine, made)
    yield from ("--label", f"{_LABEL}={execution_id}", "--mount", _mount(Mount(desk, CONTAINER_DIRECTORY)))
    if spec.network is not Network.NONE:
        for file in FILES:
            yield from ("--mount", _mount(Mount(desk / file, Path("/etc", file))))
    yield from (made.image, str(CONTAINER_DIRECTORY / "begin"))


def _options(spec: SandboxSpec, engine: Engine, made: Container) -> Iterator[str]:
    yield from ("--hostname", environment.HOSTNAME, "--pull", "never")
    yield from ("--entrypoint", "/bin/sh", "--workdir", "/", "--log-driver", "none", "--no-healthcheck")
    yield from ("--stop-signal", "KILL")  # an init ignores SIGTERM, and podman would wait
    yield from ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    # Otherwise no file of the host could be read under SELinux, unless we relabelled it.
    yield from ("--security-opt", "label=disable")
    yield from _user(engine)
    yield from _ulimits(engine)
    yield from ("--network", "none")
    size = "" if spec.limits.scratch_bytes is None else f",size={spec.limits.scratch_bytes}"
    for place in (Path("/tmp"), *(() if spec.home else (environment.HOME,))):  # noqa: S108 - the container's own
        yield from ("--tmpfs", f"{place}:{_SCRATCH}{size}")
    if spec.home is not None:
        yield from ("--mount", _mount(Mount(spec.home, environment.HOME, MountAccess.READ_WRITE)))
    if environment.SECRETS_VARIABLE in spec.environment:  # an image may have no mkdir
        yield from ("--tmpfs", f"{environment.SECRETS}:{_SCRATCH},size=256k")
    if spec.limits.scratch_bytes is not None:
        yield from ("--shm-size", str(spec.limits.scratch_bytes))
    if engine.has_limits and made.memory_bytes is not None:
        yield from ("--memory", str(made.memory_bytes), "--memory-swap", str(made.memory_bytes))
    if engine.has_limits and made.processes is not None:
        yield from ("--pids-limit", str(made.processes + _SPARE_PROCESSES))
    for mount in spec.mounts:
        yield from ("--mount", _mount(mount))


def _user(engine: Engine) -> Iterator[str]:
    """Yield the options by which the program's files belong to us outside, whoever it is inside."""
    if engine.is_podman:
        yield "--read-only-tmpfs=false"  # it would mount its own over /run and /tmp, without a limit
        if engine.is_rootless:
            yield from ("--userns", f"keep-id:uid={UID},gid={UID}", "--user", f"{UID}:{UID}")
            return
    elif engine.is_rootless:
        yield from ("--user", "0:0")  # which is our user outside
        return
    else:
        yield from ("--userns", "host")  # not the shifted one of a remapping daemon
    yield from ("--user", f"{os.geteuid()}:{os.getegid()}")


def _ulimits(engine: Engine) -> Iterator[str]:
    """Yield limits of what the kernel counts for our user."""
    limits = {"sigpending": shared_uid.pending_signals()}
    if engine.is_podman:  # it would raise these for root, which takes CAP_SYS_RESOURCE
        limits["nofile"] = rlimits.reachable(resource.RLIMIT_NOFILE, 1 << 20)
        limits["nproc"] = rlimits.reachable(resource.RLIMIT_NPROC, 1 << 15)  # the most that its monitor is left
    for name, limit in limits.items():
        yield from ("--ulimit", f"{name}={limit}:{limit}")


def _mount(mount: Mount | Overlay) -> str:
    if isinstance(mount, Overlay):
        if mount.mounted is None:
            raise SandboxUnavailableError(
                "a container cannot stack a workspace's layers", "Ask the workspace service for one that the host sees"
            )
        mount = Mount(mount.mounted, mount.target, MountAccess.READ_WRITE)
    fields = ["type=bind", f"src={mount.source}", f"dst={mount.target or mount.source}"]
    if mount.access is MountAccess.READ_ONLY:
        fields.append("readonly")
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _quoted(value: bytes) -> str:
    return shlex.quote(value.decode(errors="surrogateescape"))
