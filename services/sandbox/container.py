"""The container tier: what an engine is told to make for a spec, and what the container does first.

An engine's client is none of the parents of what it starts, and what it says of its ends (exit codes 125 to 127, a
stream that breaks) may be its own or the program's. So it only makes, starts and removes. All else goes through a
directory of ours, which the container sees read-only at CONTAINER_DIRECTORY; named pipes in it can be written to all
the same. The container's init is a shell of the image that carries out `begin`:

    begin    what it does: see `script`
    out err  the program's standard output and error
    in       its standard input, unless that is /dev/null
    status   where it says BEGAN, and at last what it was KILLED and REFUSED, and ENDED with its exit code
    life     where it is told to go on; only we hold the other end, so that the end of it is ours

Neither the program's arguments nor its environment are told to the engine, which would write them down.
"""

import csv
import io
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from services.sandbox import environment, rlimits
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import Container, Limits, Mount, MountAccess, Network, Overlay, SandboxSpec

CONTAINER_DIRECTORY = Path("/run/boatyard")
"""Where a container finds its desk."""

PIPES = ("out", "err", "in", "status", "life")
"""The named pipes on a desk."""

BEGAN = b"began"
ENDED = b"ended"

KILLED = (b"memory.events oom_kill", b"memory.oom_control oom_kill")
"""What stands on the status before how many of its processes the kernel has ended for want of memory."""

REFUSED = (b"pids.events max",)
"""The same before how many more processes it was refused."""

UID = 1000
"""User and group inside where the engine is ours; one that is root's knows us by our own numbers."""

_HOSTNAME = "boatyard"
_LABEL = "dev.boatyard.execution"
# What is in memory is mounted without an owner of ours: it may be another's number inside.
_SCRATCH = "rw,exec,nosuid,nodev,mode=1777"
# Processes of the container that are ours: its init and the one that ends it with us. The others are room for our own
# look, which gives the reason; the engine's limit is what holds when many come at once.
_SPARE_PROCESSES = 32

# Of its own control group, with version 2 and 1: it is gone with the container, so whoever wants to know asks inside.
_COUNTERS = tuple(
    f"/sys/fs/cgroup/{name}"
    for name in ("memory.events", "pids.events", "memory/memory.oom_control", "pids/pids.events")
)

# The last process of a container but its init waits for our end. It ignores what asks to end, and `kill -1` reaches all
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
    """What the spec says of its container. Raises ValueError when it says nothing."""
    if spec.container is None:
        raise ValueError("tier container needs to know its engine and its image")
    return spec.container


def script(spec: SandboxSpec, *, has_input: bool) -> bytes:
    """What the container's init carries out: in the words of every shell (POSIX), for it is the image's."""
    # Processes are counted by user, whom a container may share with others: that limit is the engine's.
    own = spec.limits
    bounds = Limits(open_files=own.open_files, cpu_seconds=own.cpu_seconds, file_size_bytes=own.file_size_bytes)
    usual = environment.base()
    exports = (
        f"export {name}={_quoted(value)}"
        for name, value in spec.environment.items()
        if name != "PATH" or value != usual["PATH"]  # the image knows better where its programs are
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
    """What the engine's client is told to make a container called `name`.

    Raises:
        SandboxUnavailableError: the spec asks for what no container here can have.
    """
    made = of(spec)
    yield from ("create", "--name", name)
    yield from _options(spec, engine, made)
    yield from ("--label", f"{_LABEL}={execution_id}", "--mount", _mount(Mount(desk, CONTAINER_DIRECTORY)))
    yield from (made.image, str(CONTAINER_DIRECTORY / "begin"))


def _options(spec: SandboxSpec, engine: Engine, made: Container) -> Iterator[str]:
    yield from ("--hostname", _HOSTNAME, "--pull", "never")
    yield from ("--entrypoint", "/bin/sh", "--workdir", "/", "--log-driver", "none", "--no-healthcheck")
    yield from ("--stop-signal", "KILL")  # an init ignores what asks it to end, and podman would wait for that
    yield from ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    # Else nothing of the host's could be read where SELinux labels files, unless we gave them other labels.
    yield from ("--security-opt", "label=disable")
    yield from _user(engine)
    if spec.network is Network.NONE:
        yield from ("--network", "none")
    elif spec.network is Network.ALLOW_LIST:
        raise SandboxUnavailableError(
            "a container has no network of allowed hosts", "Use network `none` or `open`, or tier bubblewrap"
        )
    size = "" if spec.limits.scratch_bytes is None else f",size={spec.limits.scratch_bytes}"
    for place in ("/tmp", str(environment.HOME)):  # noqa: S108 - the container's own
        yield from ("--tmpfs", f"{place}:{_SCRATCH}{size}")
    if spec.limits.scratch_bytes is not None:
        yield from ("--shm-size", str(spec.limits.scratch_bytes))
    if engine.has_limits and made.memory_bytes is not None:
        yield from ("--memory", str(made.memory_bytes), "--memory-swap", str(made.memory_bytes))
    if engine.has_limits and made.processes is not None:
        yield from ("--pids-limit", str(made.processes + _SPARE_PROCESSES))
    for mount in spec.mounts:
        yield from ("--mount", _mount(mount))


def _user(engine: Engine) -> Iterator[str]:
    """Have what the program writes belong to us outside, whoever it is inside."""
    if engine.is_podman:
        yield "--read-only-tmpfs=false"  # it would put its own over /run and /tmp, of any size
        if engine.is_rootless:
            yield from ("--userns", f"keep-id:uid={UID},gid={UID}", "--user", f"{UID}:{UID}")
            return
    elif engine.is_rootless:
        yield from ("--user", "0:0")  # who is our user outside
        return
    else:
        yield from ("--userns", "host")  # not that of a daemon that shifts all numbers
    yield from ("--user", f"{os.geteuid()}:{os.getegid()}")


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
