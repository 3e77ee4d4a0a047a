"""Several cells on one PostgreSQL are one: they share the jobs, and each answers for all of them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.e2e.test_survival import COUNTING, LINES, has_begun
from tests.kit.cell import NOT_KEPT_APART, eventually
from tests.kit.cells import SharingCell, running_cells
from tests.kit.postgres import database

Cells = tuple[SharingCell, SharingCell]


@pytest.fixture(scope="module")
def cells(postgres_server: object) -> Iterator[Cells]:
    """Two cells with one place each, for the tests that leave them as they found them."""
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    # A lease as in life: on a busy machine a cell may stand still for longer than the short one.
    settings = {"lease_seconds": 30.0, "BOATYARD_GATEWAY_MAX_JOBS": "1"}
    with database(postgres_server) as url, running_cells(directory, 2, url, **NOT_KEPT_APART, **settings) as running:
        first, second = running
        yield first, second
    shutil.rmtree(directory)


def on(cells: Cells, remote: Remote, command: str, *arguments: object) -> tuple[dict, SharingCell, SharingCell]:
    """Start a job; return it, the cell that has taken it, and the other one."""
    job = cells[0].submit(remote.path, command, *arguments)

    def taker() -> str | None:
        (shown,) = cells[0].lines("show", job["job_id"])
        return shown["cell_id"]

    taken_by = eventually(taker, "a cell takes the job")
    ours, other = cells if cells[0].cell_id == taken_by else reversed(cells)
    return job, ours, other


@pytest.mark.slow
def test_each_cell_takes_what_it_has_room_for(cells: Cells, remote: Remote, tmp_path: Path) -> None:
    first, second = cells
    # Each waits for the other: one cell alone has room for one.
    meet = f"touch {tmp_path}/$BOATYARD_JOB_ID; until test $(ls {tmp_path} | grep -c job-) = 2; do sleep 0.1; done"
    jobs = [first.submit(remote.path, meet, "--sandbox", "none") for _ in range(2)]

    assert {first.result(job["job_id"])["state"] for job in jobs} == {"SUCCEEDED"}
    assert {second.result(job["job_id"])["cell_id"] for job in jobs} == {first.cell_id, second.cell_id}


@pytest.mark.slow
def test_any_cell_shows_what_happens_on_another(cells: Cells, remote: Remote) -> None:
    job, owner, other = on(cells, remote, COUNTING)
    with other.start("logs", "--follow", job["execution_id"]) as viewer:
        eventually(lambda: has_begun(other, job["execution_id"]), "the other cell shows what the agent writes")
        killed = owner.kill_service("gateway")
        owner.await_restart("gateway", killed)

        assert other.result(job["job_id"])["state"] == "SUCCEEDED"
        assert other.output(job["execution_id"]) == LINES
        seen, complaints = viewer.communicate(timeout=30)
    assert seen == LINES, complaints
    assert b"starts.txt" in other.boatyard("diff", job["job_id"])


@pytest.mark.slow
def test_any_cell_lists_and_lets_go_of_what_another_has(cells: Cells, remote: Remote) -> None:
    job, owner, other = on(cells, remote, "echo x > left.txt; exit 3")
    ended = other.result(job["job_id"])
    (snapshot,) = [one for one in other.lines("snapshots") if one["snapshot_id"] == ended["snapshot_id"]]
    assert snapshot["cell_id"] == owner.cell_id
    assert b"left.txt" in other.boatyard("diff", ended["snapshot_id"])

    other.boatyard("workspaces", "--delete", ended["workspace_id"])
    assert ended["workspace_id"] not in [one["workspace_id"] for one in owner.lines("workspaces")]
    other.boatyard("snapshots", "--delete", ended["snapshot_id"])
    assert ended["snapshot_id"] not in [one["snapshot_id"] for one in owner.lines("snapshots")]


@pytest.mark.slow
def test_an_agent_is_talked_to_from_another_cell(cells: Cells, remote: Remote) -> None:
    job, _, other = on(cells, remote, "read line; echo heard $line", "--terminal")
    eventually(lambda: other.lines("show", job["execution_id"])[0]["state"] == "RUNNING", "the agent runs")
    shown = other.boatyard("attach", job["execution_id"], stdin=b"you\r")
    assert b"heard you" in shown
    assert other.result(job["job_id"])["state"] == "SUCCEEDED"
