"""`boatyard up` on a disk that is full: nothing has to be started by hand when there is room."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.cell import Cell, eventually, running_cell
from tests.kit.disks import fill, needs_mount, small_disk, use_up_inodes

pytestmark = [needs_mount, pytest.mark.slow, pytest.mark.timeout(200)]

SERVICES = ("workspace", "git", "execution", "gateway")


@pytest.fixture
def cell() -> Iterator[Cell]:
    directory = Path(tempfile.mkdtemp(prefix="boatyard-test-"))
    settings = {f"BOATYARD_{name}": "0" for name in ("GIT_MIN_FREE_BYTES", "WORKSPACE_DISK_RESERVE_BYTES")}
    with (
        small_disk(directory / "home", size="60m", inodes=30_000),
        running_cell(directory, BOATYARD_EXECUTION_DISK_RESERVE_BYTES="0", **settings) as running,
    ):
        yield running
    shutil.rmtree(directory)


@pytest.mark.parametrize("use_up", [fill, use_up_inodes])
def test_services_that_die_on_a_full_disk_are_there_again_when_it_has_room(
    cell: Cell, use_up: Callable[[Path], Path]
) -> None:
    ballast = use_up(cell.home)
    killed = {service: cell.kill_service(service) for service in SERVICES}
    log = cell.home.parent / "up.log"
    # More deaths than a service may otherwise have, where it cannot start without room.
    eventually(lambda: log.read_text().count("restarting it") >= len(SERVICES) * 2 or serves(cell), "they die", 60)
    shutil.rmtree(ballast) if ballast.is_dir() else ballast.unlink()
    for service, pid in killed.items():
        cell.await_restart(service, pid)
    eventually(lambda: serves(cell), "all serve")
    assert cell.process
    assert cell.process.poll() is None
    (line,) = cell.lines("run", "--command", "echo well", "--detach", "Do it.")
    assert cell.result(line["job_id"])["state"] == "SUCCEEDED"


def serves(cell: Cell) -> bool:
    return bool(cell.boatyard("status", code=None))
