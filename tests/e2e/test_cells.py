"""Several cells on one PostgreSQL are one: they share the jobs, and each answers for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.kit.cells import SharingCell, running_cells


@pytest.fixture
def cells(scratch: Path, postgres_url: str) -> Iterator[list[SharingCell]]:
    with running_cells(scratch, 2, postgres_url, BOATYARD_GATEWAY_MAX_JOBS="1") as running:
        yield running


def test_each_cell_takes_what_it_has_room_for(cells: list[SharingCell], remote: Remote) -> None:
    first, second = cells
    jobs = [first.submit(remote.path, "sleep 1") for _ in range(2)]
    taken = {first.result(job["job_id"])["state"] for job in jobs}
    assert taken == {"SUCCEEDED"}
    assert {second.result(job["job_id"])["cell_id"] for job in jobs} == {first.cell_id, second.cell_id}
