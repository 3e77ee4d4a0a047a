"""The machines: cells with a gateway, and coordinators, each of which may be killed, stopped and lost."""

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

_UPS = 6


class FleetCell(Cell):
    """A cell that is killed, and put up again, at will."""

    driver = "gateway"
    """The service that carries jobs."""
    id_file = "cell-id"

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        super().__init__(home)
        self.environment |= environment
        self.is_gone = False

    @property
    def name(self) -> str:
        return self.home.parent.name

    def bring_up(self) -> None:
        """Start it, as often as whoever keeps it alive would: its database may be away."""
        for left in reversed(range(_UPS)):
            self.reap()
            try:
                self.up()
            except AssertionError:
                if not left:
                    raise
            else:
                return

    def reap(self) -> None:
        """Take note of the end of what was put up."""
        if self.process and self.process.stdout:
            self.process.wait(timeout=90)
            self.process.stdout.close()
            self.process = None

    def has_given_up(self) -> bool:
        """Whether `up` has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def lose(self) -> None:
        """End every process of the machine at once, with -9."""
        while found := processes.with_environment({"BOATYARD_HOME": str(self.home)}):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.reap()

    def pid(self, service: str) -> int | None:
        """Return the process of a service, or None while there is none."""
        if self.process is None:
            return None
        found = processes.children(self.process.pid, f"services.{service}")
        return found[0] if len(found) == 1 else None

    def runners(self) -> dict[int, str]:
        """Return {pid: execution id} of the runners that carry one."""
        carrying = {}
        for pid, line in processes.with_environment({"BOATYARD_HOME": str(self.home)}).items():
            if line.rstrip().endswith("-m services.execution.runner"):
                with contextlib.suppress(OSError):
                    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                        target = descriptor.readlink()
                        if target.name == "lock" and target.parent.parent.name == "runs":
                            carrying[pid] = target.parent.name
        return carrying

    def cell_id(self) -> str:
        return (self.home / self.driver / self.id_file).read_text().strip()


class FleetCoordinator(FleetCell):
    """A machine that reaches the gateways by links of its own, and nothing of theirs but the public API."""

    driver = "coordinator"
    id_file = "coordinator-id"

    def __init__(self, home: Path, environment: dict[str, str], gateways: Sequence[FleetCell]) -> None:
        super().__init__(home, environment)
        self.links = [Link(gateway.address("gateway")) for gateway in gateways]
        self.command = "coordinator"
        self.arguments = ("--upstream", ",".join(link.address for link in self.links), "--capacity", "4")


def end(cell: FleetCell) -> None:
    """End it, whatever state it is in."""
    if not cell.is_gone and cell.process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            cell.boatyard("down", code=None, timeout=120)
    cell.lose()  # where `down` could not; the proofs have looked before
    unmount_below(cell.home)
    if isinstance(cell, FleetCoordinator):
        for link in cell.links:
            link.close()


def pause(pid: int, seconds: float) -> None:
    """Stop a process for a while."""
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
