"""Several cells on one PostgreSQL, each with `boatyard up` on a home of its own, as if on its own machine.

A cell is killed, frozen and restarted as a whole (supervisor, services, runners and agents), like a machine that loses
its power, freezes, or boots again.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.kit import processes
from tests.kit.cell import Cell, eventually
from tests.kit.databases import NODE_SERVICES, add_databases, write_keys
from tests.kit.mounts import unmount_below

LEASE_SECONDS = 3.0
"""Short, so that a test of a takeover need not wait long."""


class SharingCell(Cell):
    """A cell that shares its database with others."""

    def __init__(self, home: Path, database_url: str, **environment: str) -> None:
        super().__init__(home)
        self.arguments = ("--database-url", database_url)
        self.environment |= environment

    @property
    def cell_id(self) -> str:
        return (self.home / "gateway" / "cell-id").read_text().strip()

    def pids(self) -> list[int]:
        """Return the cell's processes and their descendants: agents do not have the cell's environment."""
        return processes.with_descendants(processes.with_environment({"BOATYARD_HOME": str(self.home)}))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the cell."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill the whole cell with -9, as a power failure would; return when nothing of it is left."""

        def gone() -> bool:
            self.signal(signal.SIGKILL)  # again, because a process may have started another meanwhile
            return not self.pids()

        eventually(gone, "the cell is gone")
        self.reap()

    def stop(self) -> None:
        """Stop the services in order, like a machine that is shut down for a while; agents go on."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0
        self.reap()

    def freeze(self) -> None:
        """Pause the whole cell."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def reap(self) -> None:
        """Wait for a supervisor that is ending, and let go of it."""
        if self.process:
            self.process.wait(timeout=30)
            assert self.process.stdout
            self.process.stdout.close()
            self.process = None


@contextlib.contextmanager
def running_cells(
    directory: Path,
    count: int,
    database_url: str,
    *,
    lease_seconds: float = LEASE_SECONDS,
    disks: Callable[[Path], contextlib.AbstractContextManager[object]] | None = None,
    **environment: str,
) -> Iterator[list[SharingCell]]:
    """Start cells below `directory` on one database; end them and check that nothing of them is left.

    `disks` gives each home a disk of its own.
    """
    keys = {"BOATYARD_GATEWAY_KEYS_FILE": str(write_keys(directory / "keys"))}
    settings = {"BOATYARD_GATEWAY_LEASE_SECONDS": str(lease_seconds), **keys, **environment}
    cells = []
    with contextlib.ExitStack() as stack:
        for number in range(count):
            home = directory / f"cell-{number}" / "home"
            home.parent.mkdir()
            if disks is not None:
                stack.enter_context(disks(home))
            add_databases(home, *NODE_SERVICES)
            cell = SharingCell(home, database_url, **settings)
            stack.callback(_end, cell)
            cell.begin()
            cells.append(cell)
        for cell in cells:
            cell.await_ready()
        yield cells


def _end(cell: SharingCell) -> None:
    cell.thaw()
    try:
        cell.down()
    except subprocess.SubprocessError:
        cell.kill()
        raise
    finally:
        unmount_below(cell.home)
    left = processes.with_environment({"BOATYARD_HOME": str(cell.home)})
    assert not left, f"processes left behind: {left}"
