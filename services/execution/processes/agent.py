"""The agent's processes: one class per sandbox tier, and one interface to watch them, ask them to end, and end them."""

from typing import Protocol

from services.execution.cgroups.group import ControlGroup
from services.execution.door.child import ModelDoor
from services.execution.egress.child import Egress
from services.execution.eventlog import EventWriter
from services.execution.model import EndVerification, Reason
from services.execution.processes.bare import BareAgent
from services.execution.processes.sandboxed import SandboxedAgent
from services.execution.rundir.directory import RunDirectory
from services.sandbox import descriptors, device_nodes, host_uids, seccomp, shared_uid
from services.sandbox.spec import Network, SandboxSpec, Tier


class Agent(Protocol):
    """A started program."""

    stdout: int
    """Non-blocking descriptor of its standard output."""
    stderr: int
    """Non-blocking descriptor of its standard error."""
    exited: int
    """Becomes readable when the outermost process has ended."""

    @property
    def status(self) -> int | None:
        """A descriptor that calls for `read_status` whenever it becomes readable; None if there is none."""
        ...

    def read_status(self) -> bool:
        """Read what the sandbox reports about itself; return False when it will report no more."""
        ...

    def terminate(self) -> bool:
        """Ask the program to end; return False when it is not there yet: then call again soon."""
        ...

    def kill(self) -> None:
        """Kill all processes of the program."""
        ...

    def finish(self) -> int:
        """After `exited`: end all processes that are left, and return how many remain nonetheless."""
        ...

    @property
    def exit_status(self) -> int | None:
        """After `finish`: the exit code, a negative signal, or None when the program never started."""
        ...

    @property
    def verified_by(self) -> EndVerification | None:
        """After `finish`: how it was verified that no process is left; None when the program never started."""
        ...

    @property
    def egress(self) -> Egress | None:
        """The proxy, if there is a network: the caller reads its decisions and closes it in the end."""
        ...

    @property
    def limit(self) -> Reason | None:
        """After `finish`: a limit that the program reached, as reported by its container; None for none."""
        ...

    def root(self) -> int | None:
        """Return the process from which all processes of the program descend; None while it is unknown."""
        ...


def start(spec: SandboxSpec, run: RunDirectory, group: ControlGroup | None, door: ModelDoor | None = None) -> Agent:
    """Start the program of `spec` for a run. Call from the main thread: the program does not outlive it.

    With a `group` this process is in it afterwards, and must leave it soon. A `door` is opened where the program is.

    Raises:
        SandboxUnavailableError: there is no sandbox on this machine.
        OSError: the kernel refuses.
    """
    with descriptors.memory_file(run.stdin.read_bytes()) if run.stdin.exists() else descriptors.null_device() as fd:
        return start_on(spec, fd, run, group, door)


def start_on(
    spec: SandboxSpec, stdin: int, run: RunDirectory, group: ControlGroup | None, door: ModelDoor | None = None
) -> Agent:
    """Do what `start` does, with a descriptor as standard input, which the caller still has to close."""
    # The proxy is started outside the group, because its limits are for the program alone.
    egress = None
    if spec.network is not Network.NONE and spec.tier is not Tier.NONE:
        egress = Egress(spec.allow, everything=spec.network is Network.OPEN)
    try:
        return _start(spec, stdin, run, group, egress=egress, door=door)
    except BaseException:
        if egress is not None:
            egress.close()
        raise


def _start(
    spec: SandboxSpec,
    stdin: int,
    run: RunDirectory,
    group: ControlGroup | None,
    *,
    egress: Egress | None,
    door: ModelDoor | None,
) -> Agent:
    if spec.tier is Tier.CONTAINER:
        from services.execution.processes.contained import ContainedAgent  # noqa: PLC0415 - threads, engines' clients

        return ContainedAgent(spec, stdin, run.path, egress, door)
    if group is not None:
        group.enter()
    if spec.tier is Tier.NONE:
        return BareAgent(spec, stdin, run.home, group)
    return SandboxedAgent(spec, stdin, group, egress, door)


def announce(writer: EventWriter, spec: SandboxSpec) -> None:
    """Append notes about how a run's sandbox is weaker than people expect, or different."""
    if spec.tier is Tier.NONE:
        writer.note("NO SANDBOX: what runs here has all rights of the service, on the whole machine")
        return
    if spec.container is not None:
        writer.note(f"in a container of image {spec.container.image}")
        return
    of_our_uid = (device_nodes.weakness(), shared_uid.weakness()) if host_uids.of(spec) is None else ()
    for weakness in (seccomp.weakness(), *of_our_uid):
        if weakness is not None:
            writer.note(weakness)
