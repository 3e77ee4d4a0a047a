"""Runner processes. One is always kept warm, because starting Python takes ten times as long as starting a sandbox."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import services
from services.execution.cgroups.group import HIERARCHIES_VARIABLE, ControlGroupHierarchies, to_text
from services.execution.rundir.directory import RunDirectory
from services.execution.service.credentials import EngineCredentials
from services.sandbox import container_engines

_ROOT = Path(services.__file__).parent.parent
_REFILL_S = 0.5
_STARTS_PER_PROCESSOR = 2

Runner = subprocess.Popen[bytes]


class Runners:
    """Starts runners. A warm one waits on its standard input, and ends by itself when this process ends."""

    def __init__(self, credentials: EngineCredentials, control_groups: ControlGroupHierarchies) -> None:
        """Runners get those of the `credentials` that their engine needs, through a pipe that nobody else reads.

        `control_groups` is where runners make their own.
        """
        self._credentials = credentials
        self._control_groups = control_groups
        self.start_slots = asyncio.Semaphore(_STARTS_PER_PROCESSOR * (os.cpu_count() or 1))
        """To be held from the start of a runner until it holds the lock of its run."""
        self._spare: Runner | None = None
        self._refill: asyncio.TimerHandle | None = None

    def warm_up(self) -> None:
        """Start a warm runner unless there is one."""
        if self._spare is None:
            self._spare = _spawn(self._control_groups)

    def start(self, run: RunDirectory) -> Runner:
        """Give a run to a runner. If another runner has this run already, the new one ends at once."""
        engine = run.engine()
        credentials = b"" if engine is None else self._credentials.of(engine)
        runner = self._spare
        self._spare = None
        if runner is None or not _assign(runner, run, credentials):
            runner = _spawn(self._control_groups)
            _assign(runner, run, credentials)
        if self._refill is not None:
            self._refill.cancel()
        # Later, because the agent that starts now has a better use for the processor.
        self._refill = asyncio.get_running_loop().call_later(_REFILL_S, self.warm_up)
        return runner

    def close(self) -> None:
        """End the warm runner."""
        if self._refill is not None:
            self._refill.cancel()
        if self._spare is not None and self._spare.stdin is not None:
            self._spare.stdin.close()
            self._spare.wait()
            self._spare = None


def _spawn(control_groups: ControlGroupHierarchies) -> Runner:
    """Start a runner in a session of its own, without our environment, which may hold what no agent should see."""
    environment = {"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
    if home := os.environ.get("BOATYARD_HOME"):  # for people who look for the processes of one data directory
        environment["BOATYARD_HOME"] = home
    # With these, a container engine's client finds its engine there as it does here.
    environment |= {name: os.environ[name] for name in container_engines.VARIABLES if name in os.environ}
    if control_groups:
        environment[HIERARCHIES_VARIABLE] = to_text(control_groups)
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "services.execution.runner"],
        env=environment,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _assign(runner: Runner, run: RunDirectory, credentials: bytes) -> bool:
    """Tell a runner its run and its engine's credentials; return False when it died while it waited."""
    if runner.stdin is None:
        raise RuntimeError("the runner was started without a pipe")
    try:
        runner.stdin.write(os.fsencode(run.path) + b"\n" + credentials)
        runner.stdin.close()
    except BrokenPipeError:
        runner.stdin.close()
        runner.wait()
        return False
    return True
