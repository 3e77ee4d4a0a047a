"""The agent's processes in the default tier."""

import contextlib
import json
import os
import select
from collections.abc import Callable, Iterator, Sequence

from services.execution.cgroups.group import ControlGroup
from services.execution.door.child import ModelDoor
from services.execution.egress.child import Egress
from services.execution.model import EndVerification
from services.execution.processes.init import Init
from services.execution.processes.spawning import pipes, spawn
from services.sandbox.launch import prepare
from services.sandbox.spec import SandboxSpec
from services.sandbox.termination import kill_with_children

_GONE_WITHIN_S = 10.0
_BEGINS_WITHIN_S = 30.0


class SandboxedAgent:
    """A program under bubblewrap: runner → bwrap → the namespace's init → the program."""

    limit = None

    def __init__(
        self,
        spec: SandboxSpec,
        stdin: int,
        group: ControlGroup | None,
        egress: Egress | None,
        door: ModelDoor | None = None,
    ) -> None:
        """The program starts only when the proxy and the door, if there are any, listen in the sandbox."""
        self._group = group
        self.egress = egress
        self.status, status_end = os.pipe()
        os.set_blocking(self.status, False)
        self._documents = b""
        self._init: Init | None = None
        self.exit_status: int | None = None
        self.verified_by: EndVerification | None = None
        try:
            listeners = [listener for listener in (egress, door) if listener is not None]
            with (
                _gate(is_wanted=bool(listeners)) as (gate, pass_gate),
                prepare(spec, status_fd=status_end, block_fd=gate) as launch,
            ):
                self._bwrap = spawn(launch, stdin)
                self.exited = os.pidfd_open(self._bwrap.pid)
                self.stdout, self.stderr = pipes(self._bwrap)
                if listeners:
                    self._connect(listeners)
                    pass_gate()
        finally:
            os.close(status_end)

    def _connect(self, listeners: Sequence[Egress | ModelDoor]) -> None:
        """Have these listen in the sandbox. Raises SandboxUnavailableError, after ending all processes."""
        try:
            while self._init is None:
                ended = self.exited in select.select([self.status, self.exited], [], [], _BEGINS_WITHIN_S)[0]
                self.read_status()
                if ended and self._init is None:
                    return  # its complaint is on standard error, and its end is handled like any other
            for listener in listeners:
                listener.open(self._init.pid)
        except BaseException:
            self.finish()
            raise

    def read_status(self) -> bool:
        """Read the init's pid, while it certainly still belongs to the init, and the exit code."""
        more = True
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.status, 4096):
                self._documents += chunk
            more = False
        for line in self._documents.splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # not complete yet
                document = json.loads(line)
                self.exit_status = document.get("exit-code", self.exit_status)
                if self._init is None and "child-pid" in document:
                    self._hold_init(document["child-pid"])
        return more

    def terminate(self) -> bool:
        """Ask the child of the namespace's init to end, because the init ignores it."""
        self.read_status()
        if self._init is None:
            return False
        return self._init.terminate() > 0

    def kill(self) -> None:
        """Kill the namespace's init, or bwrap if there is no init yet."""
        self.read_status()
        if self._init is None:
            kill_with_children(self._bwrap.pid)
            return
        self._init.kill()

    def finish(self) -> int:
        """End the namespace: once its init is gone, the kernel has ended every process in it."""
        self.kill()
        self._bwrap.wait()
        remaining = 0
        if self._init is not None:
            remaining = self._init.processes_left(_GONE_WITHIN_S)
            self.verified_by = EndVerification.PID_NAMESPACE if remaining == 0 else None
        return remaining if self._group is None else max(remaining, self._group.end(_GONE_WITHIN_S))

    def root(self) -> int | None:
        """Return the namespace's init."""
        return None if self._init is None else self._init.pid

    def _hold_init(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._init = Init(pid)


@contextlib.contextmanager
def _gate(*, is_wanted: bool) -> Iterator[tuple[int | None, Callable[[], object]]]:
    """Yield a descriptor that blocks the program until all is ready, and what unblocks it; leaving does too."""
    if not is_wanted:
        yield None, lambda: None
        return
    reading, writing = os.pipe()
    try:
        yield reading, lambda: os.write(writing, b"x")
    finally:
        os.close(reading)
        os.close(writing)
