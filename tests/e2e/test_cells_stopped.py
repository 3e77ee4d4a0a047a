"""Stopping and restarting another cell than the one that is called, as an administrator of a fleet does."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.e2e.test_cells import Cells, cells, on  # noqa: F401 - the fixture
from tests.kit.cell import Cell, eventually
from tests.kit.cells import SharingCell

pytestmark = pytest.mark.slow

SERVICES = ("workspace", "git", "execution", "gateway")


def begun(cells: Cells, remote: Remote, directory: Path):  # noqa: F811
    """Start a job whose agent waits for a file; return it, its cell, the other cell and the file."""
    ready, go = directory / "ready", directory / "go"
    waits = f"touch {ready}; until test -e {go}; do sleep 0.1; done"
    job, owner, other = on(cells, remote, waits, "--sandbox", "none")
    eventually(ready.exists, "the agent runs")
    return job, owner, other, go


def ends_in_one_attempt(cell: Cell, job: dict) -> None:
    ended = cell.result(job["job_id"])
    assert (ended["state"], len(ended["execution_ids"])) == ("SUCCEEDED", 1), ended


def check_recorded(called: SharingCell, call: str, owner: SharingCell) -> None:
    """Check that the audit has a call about a cell: by the gateway that was called, and by the cell's own."""
    records = called.lines("audit", "--call", f"AdminService/{call}", "--of", owner.cell_id)
    assert {(record["caller"], record["status"]) for record in records} == {("admin", "OK")}
    ways = sorted((record["cell_id"], record["forwarded_by_cell_id"] or "") for record in records)
    assert ways == sorted([(called.cell_id, ""), (owner.cell_id, called.cell_id)])


def test_another_cell_is_restarted_and_its_agents_go_on(cells: Cells, remote: Remote, tmp_path: Path) -> None:  # noqa: F811
    job, owner, other, go = begun(cells, remote, tmp_path)
    before = {service: owner.service_pid(service) for service in SERVICES}
    untouched = {service: other.service_pid(service) for service in SERVICES}
    (said,) = other.lines("cells", "restart", owner.cell_id)
    assert said["cell_id"] == owner.cell_id
    for service, pid in before.items():
        owner.await_restart(service, pid)
    go.touch()
    ends_in_one_attempt(other, job)
    assert {service: other.service_pid(service) for service in SERVICES} == untouched
    check_recorded(other, "RestartCell", owner)


def test_another_cell_is_stopped_and_goes_on_when_it_is_started(cells: Cells, remote: Remote, tmp_path: Path) -> None:  # noqa: F811
    job, owner, other, go = begun(cells, remote, tmp_path)
    (said,) = other.lines("cells", "stop", owner.cell_id)
    assert said["cell_id"] == owner.cell_id
    owner.reap()
    go.touch()  # its agent is left, and sees it
    owner.begin()
    owner.await_ready()
    ends_in_one_attempt(other, job)
    check_recorded(other, "StopCell", owner)
