"""The agent's processes: each sandbox tier has a class, and all one way to be watched, asked to end, and ended."""

from typing import Protocol

from services.execution.egress.child import Egress
from services.execution.model import EndVerification, Reason
from services.execution.rundir import RunDirectory
from services.execution.runner.bare import BareAgent
from services.execution.runner.group import Group
from services.execution.runner.sandboxed import SandboxedAgent
from services.sandbox import descriptors
from services.sandbox.spec import Network, SandboxSpec, Tier


class Agent(Protocol):
    """A started program."""

    stdout: int
    """Non-blocking descriptor of its standard output."""
    stderr: int
    """Non-blocking descriptor of its standard error."""
    exited: int
    """Becomes readable when its outermost process has ended."""

    @property
    def status(self) -> int | None:
        """Calls for `read_status` whenever it becomes readable."""
        ...

    def read_status(self) -> bool:
        """Learn what the sandbox tells of itself; False when it will tell no more."""
        ...

    def terminate(self) -> bool:
        """Ask the program to end; False when it is not there yet, to be called again soon."""
        ...

    def kill(self) -> None:
        """End all its processes."""
        ...

    def finish(self) -> int:
        """After `exited`: end what is left, and return how many processes remain all the same."""
        ...

    @property
    def exit_status(self) -> int | None:
        """After `finish`: the exit code, a negative signal, or None when the program never began."""
        ...

    @property
    def verified_by(self) -> EndVerification | None:
        """After `finish`: what told that nothing is left; None when the program never began."""
        ...

    @property
    def egress(self) -> Egress | None:
        """Its way out, where that is an allow list: its decisions are to be read, and it is to be closed at last."""
        ...

    @property
    def limit(self) -> Reason | None:
        """After `finish`: a limit that the program came up to, as whoever contains it has seen; None for none."""
        ...

    def root(self) -> int | None:
        """The process of which all of the program's descend; None while it is not known."""
        ...


def start(spec: SandboxSpec, run: RunDirectory, group: Group | None) -> Agent:
    """Start the program of `spec` for a run from this, the main, thread; it lives no longer than the thread.

    With a `group` this process is in it afterwards, and shall leave it soon.

    Raises:
        SandboxUnavailableError: there is no sandbox here.
        OSError: the kernel refuses.
    """
    with descriptors.memory_file(run.stdin.read_bytes()) if run.stdin.exists() else descriptors.null_device() as fd:
        return start_on(spec, fd, run, group)


def start_on(spec: SandboxSpec, stdin: int, run: RunDirectory, group: Group | None) -> Agent:
    """Start as `start` does, with a descriptor as standard input; it stays the caller's."""
    if spec.tier is Tier.CONTAINER:
        from services.execution.runner.contained import ContainedAgent  # noqa: PLC0415 - threads, and what asks engines

        return ContainedAgent(spec, stdin, run.path)
    # Outside of the group, whose limits are the program's.
    egress = Egress(spec.allow) if spec.network is Network.ALLOW_LIST and spec.tier is not Tier.NONE else None
    if group is not None:
        group.enter()
    try:
        if spec.tier is Tier.NONE:
            return BareAgent(spec, stdin, run.home, group)
        return SandboxedAgent(spec, stdin, group, egress)
    except BaseException:
        if egress is not None:
            egress.close()
        raise
