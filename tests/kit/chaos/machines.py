"""The machines: cells with a gateway, and coordinators, each of which may be killed, paused and lost."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kit import processes
from tests.kit.cell import Cell, eventually
from tests.kit.link import Link
from tests.kit.mounts import unmount_below

_START_TRIES = 6
_RUNNER = "services.execution.runner"


class FleetCell(Cell):
    """A cell that can be killed and started again at any time."""

    driver = "gateway"
    """The service that drives jobs."""
    id_file = "cell-id"

    def __init__(self, home: Path, environment: dict[str, str], *, has_small_disk: bool = False) -> None:
        """With `has_small_disk`, its home is to be a disk of its own that can be filled."""
        super().__init__(home)
        self.environment |= environment
        self.has_small_disk = has_small_disk
        self.is_gone = False

    @property
    def lease_seconds(self) -> float:
        return float(self.environment["BOATYARD_GATEWAY_LEASE_SECONDS"])

    @property
    def name(self) -> str:
        return self.home.parent.name

    def bring_up(self) -> None:
        """Start it, with retries as a process manager would: its database may be away."""
        for tries_left in reversed(range(_START_TRIES)):
            self.reap()
            try:
                self.up()
            except AssertionError:
                if not tries_left:
                    raise
            else:
                return

    def reap(self) -> None:
        """Wait for the end of the process that was started, and let go of it."""
        if self.process and self.process.stdout:
            self.process.wait(timeout=90)
            self.process.stdout.close()
            self.process = None

    def has_given_up(self) -> bool:
        """True when `up` has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def kill_all(self) -> None:
        """Kill every process of the machine at once, with -9."""
        while pids := processes.with_environment({"BOATYARD_HOME": str(self.home)}):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.reap()

    def pid(self, service: str) -> int | None:
        """Return the process of a service, or None while there is none."""
        if self.process is None:
            return None
        pids = processes.children(self.process.pid, f"services.{service}")
        return pids[0] if len(pids) == 1 else None

    def runners(self) -> dict[int, str]:
        """Return {pid: execution id} of the runners that run an execution."""
        executions = {}
        for pid, line in processes.with_environment({"BOATYARD_HOME": str(self.home)}).items():
            if line.rstrip().endswith(f"-m {_RUNNER}"):
                with contextlib.suppress(OSError):
                    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                        target = descriptor.readlink()
                        if target.name == "lock" and target.parent.parent.name == "runs":
                            executions[pid] = target.parent.name
        return executions

    def zygote(self) -> int | None:
        """Return the process that forks runners, or None while there is none."""
        service = self.pid("execution")
        pids = processes.children(service, _RUNNER) if service else []
        return pids[0] if len(pids) == 1 else None

    def doors(self) -> dict[int, str]:
        """Return {pid: execution id} of the doors to models."""
        return {pid: name for runner, name in self.runners().items() for pid in processes.children(runner, _RUNNER)}

    def cell_id(self) -> str:
        return (self.home / self.driver / self.id_file).read_text().strip()


class FleetCoordinator(FleetCell):
    """A machine that reaches the gateways over links of its own, and only their public API."""

    driver = "coordinator"
    id_file = "coordinator-id"

    def __init__(self, home: Path, environment: dict[str, str], gateways: Sequence[FleetCell]) -> None:
        super().__init__(home, environment)
        self.links = [Link(gateway.address("gateway")) for gateway in gateways]
        self.command = "coordinator"
        self.arguments = ("--upstream", ",".join(link.address for link in self.links), "--capacity", "4")
        self.environment["BOATYARD_INSECURE"] = "1"  # the links have no certificates


def end(cell: FleetCell) -> None:
    """End a machine, whatever state it is in."""
    if not cell.is_gone and cell.process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            cell.boatyard("down", code=None, timeout=120)
    cell.kill_all()  # if `down` could not; leftovers were checked before
    unmount_below(cell.home)
    if isinstance(cell, FleetCoordinator):
        for link in cell.links:
            link.close()


def pause(pid: int, seconds: float) -> None:
    """Pause a process, and let it continue."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def bring_down(cell: FleetCell) -> None:
    """Tell `up` to end, and wait for it."""
    if cell.process is not None:
        cell.process.terminate()
        eventually(lambda: cell.process.poll() is not None, "`up` ends when told", timeout=90)
        cell.reap()
