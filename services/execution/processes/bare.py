"""The agent's processes without a sandbox."""

import contextlib
import os
import signal
from pathlib import Path

from services.execution.cgroups.group import ControlGroup
from services.execution.model import EndVerification
from services.execution.processes import orphans
from services.execution.processes.spawning import pipes, spawn
from services.sandbox.launch import prepare
from services.sandbox.spec import SandboxSpec

_GONE_WITHIN_S = 10.0


class BareAgent:
    """A program without a sandbox. Its children are found by their control group, or as orphans that we adopt."""

    limit = None

    def __init__(self, spec: SandboxSpec, stdin: int, home: Path, group: ControlGroup | None) -> None:
        orphans.adopt()
        self._group = group
        self.egress = None
        self.verified_by: EndVerification | None = None
        self.status = None
        home.mkdir(mode=0o700, exist_ok=True)
        with prepare(spec, home=home) as launch:
            self._program = spawn(launch, stdin)
        self.exited = os.pidfd_open(self._program.pid)
        self.stdout, self.stderr = pipes(self._program)

    @property
    def exit_status(self) -> int | None:
        """The exit code, or a negative signal."""
        return self._program.returncode

    def read_status(self) -> bool:
        """Return False: there is no sandbox to report anything."""
        return False

    def terminate(self) -> bool:
        """Ask the program to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._program.pid, signal.SIGTERM)
        return True

    def kill(self) -> None:
        """Kill the program and its process group; `finish` finds the others."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._program.pid, signal.SIGKILL)

    def finish(self) -> int:
        """Kill descendants, also those that become our children when their parents die, until there are none."""
        self.kill()
        self._program.wait()
        if self._group is not None:
            remaining = self._group.end(_GONE_WITHIN_S)
            self.verified_by = EndVerification.CGROUP if remaining == 0 else None
            return remaining
        remaining = orphans.end(_GONE_WITHIN_S)
        self.verified_by = EndVerification.SUBREAPER if remaining == 0 else None
        return remaining

    def root(self) -> int | None:
        """Return this process itself, which has no other children."""
        return os.getpid()
