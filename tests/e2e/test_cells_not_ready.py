"""A machine's own trouble is that machine's: jobs go to the others, and nothing of them is used up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cell import eventually
from tests.kit.cells import SharingCell, running_cells

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

JOBS = 30
UNABLE = {"BOATYARD_WORKSPACE_DISK_RESERVE_BYTES": str(1 << 60)}


@pytest.fixture
def cells(scratch: Path, postgres_url: str) -> Iterator[list[SharingCell]]:
    """Four cells, the last of which has too little disk space for any job."""
    with running_cells(scratch, 4, postgres_url, lease_seconds=20.0) as running:
        running[-1].stop()
        running[-1].up(**UNABLE)
        yield running


def test_a_cell_that_cannot_carry_fails_no_job_of_a_cluster(cells: list[SharingCell], remote: Remote) -> None:
    *able, unable = cells
    (before,) = [cell for cell in able[0].lines("cells") if cell["cell_id"] == unable.cell_id]
    assert (before["state"], [trouble["reason"] for trouble in before["troubles"]]) == ("NOT_READY", ["DISK_FULL"])
    assert able[0].lines("status")[0]["not_ready_cells"] == 1

    for _ in range(JOBS):
        unable.submit(remote.path, "echo x > new.txt", "--no-push")

    def ended() -> list[dict] | None:
        jobs = able[0].lines("ps", "--limit", "100")
        return jobs if all(job["state"] not in ("PENDING", "RUNNING") for job in jobs) else None

    jobs = eventually(ended, "all jobs end", timeout=200)
    assert isinstance(jobs, list)
    assert [job["state"] for job in jobs] == ["SUCCEEDED"] * JOBS
    assert {len(job["execution_ids"]) for job in jobs} == {1}, "all in one attempt"
    assert {job["cell_id"] for job in jobs} <= {cell.cell_id for cell in able}
