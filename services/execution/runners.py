"""Runner processes: one is always warm, for starting Python takes ten times as long as starting a sandbox."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import services
from services.execution.rundir import RunDirectory
from services.execution.runner.group import PLACES_VARIABLE, Places, to_text
from services.sandbox import container_engines

_ROOT = Path(services.__file__).parent.parent
_REFILL_S = 0.5
_BEGINNING_PER_PROCESSOR = 2

Runner = subprocess.Popen[bytes]


class Runners:
    """Starts runners. A warm one waits on its standard input, and ends by itself when this process does."""

    def __init__(self, access: bytes, places: Places) -> None:
        """`access` is what reaches a model; runners that need it are told by their pipe, and nobody else is.

        `places` is where they make control groups.
        """
        self._access = access
        self._places = places
        self.beginning = asyncio.Semaphore(_BEGINNING_PER_PROCESSOR * (os.cpu_count() or 1))
        """To be held from the start of a runner until it has its run."""
        self._spare: Runner | None = None
        self._refill: asyncio.TimerHandle | None = None

    def warm_up(self) -> None:
        """Have a runner ready."""
        if self._spare is None:
            self._spare = _spawn(self._places)

    def start(self, run: RunDirectory) -> Runner:
        """Give a run to a runner. Where another already carries this run, the new one ends at once."""
        access = self._access if run.needs_model() else b""
        runner = self._spare
        self._spare = None
        if runner is None or not _give(runner, run, access):
            runner = _spawn(self._places)
            _give(runner, run, access)
        if self._refill is not None:
            self._refill.cancel()
        # Later, for now the agent has a better use for the processor.
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


def _spawn(places: Places) -> Runner:
    """Start a runner in a session of its own, with nothing of our environment: it may hold what no agent should see."""
    environment = {"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
    if home := os.environ.get("BOATYARD_HOME"):  # for people who look for the processes of a data directory
        environment["BOATYARD_HOME"] = home
    # By them a container engine's client finds its engine, as it does for us.
    environment |= {name: os.environ[name] for name in container_engines.VARIABLES if name in os.environ}
    if places:
        environment[PLACES_VARIABLE] = to_text(places)
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "services.execution.runner"],
        env=environment,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _give(runner: Runner, run: RunDirectory, access: bytes) -> bool:
    """Tell a runner its run, and what reaches a model; False when it has died while it waited."""
    if runner.stdin is None:
        raise RuntimeError("the runner was started without a pipe")
    try:
        runner.stdin.write(os.fsencode(run.path) + b"\n" + access)
        runner.stdin.close()
    except BrokenPipeError:
        runner.stdin.close()
        runner.wait()
        return False
    return True
