"""Cells that are killed, frozen, restarted and cut off from their database: what becomes of their jobs."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.conftest import Remote
from tests.e2e.test_survival import COUNTING, LINES, has_begun
from tests.kit import processes
from tests.kit.cell import NOT_KEPT_APART, eventually
from tests.kit.cells import LEASE_SECONDS, SharingCell, running_cells
from tests.kit.contract import ROOT
from tests.kit.link import linked
from tests.kit.postgres import OwnPostgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Cells = list[SharingCell]

ONCE = "test -e {flag} && exit 0; touch {flag}; echo begun; : {flag}; sleep 600; : {flag}"
"""An agent that hangs the first time."""


@pytest.fixture
def cells(scratch: Path, postgres_url: str) -> Iterator[Cells]:
    with running_cells(scratch, 2, postgres_url, **NOT_KEPT_APART) as running:
        yield running


def owner_of(cells: Cells, job_id: str) -> tuple[SharingCell, SharingCell]:
    """Return the cell that has taken a job, and another one."""

    def taker() -> str | None:
        (shown,) = cells[0].lines("show", job_id)
        return shown["cell_id"]

    cell_id = eventually(taker, "a cell takes the job")
    (owner,) = [cell for cell in cells if cell.cell_id == cell_id]
    return owner, next(cell for cell in cells if cell is not owner)


def test_the_jobs_of_a_cell_that_is_killed_for_good_end_elsewhere(cells: Cells, remote: Remote) -> None:
    flag = remote.path.parent / "begun-once"
    job = cells[0].submit(remote.path, f"sh -c '{ONCE.format(flag=flag)}' ; echo x > new.txt", "--sandbox", "none")
    owner, other = owner_of(cells, job["job_id"])
    eventually(flag.exists, "the agent has begun")
    with other.start("logs", "--follow", job["execution_id"]) as viewer:
        assert viewer.stdout
        assert viewer.stdout.readline() == b"begun\n", "it is seen from the other cell"
        owner.kill()
        began = time.monotonic()
        ended = other.result(job["job_id"], timeout=90)
        print(f"taken over and ended after {time.monotonic() - began:.1f} s with a lease of {LEASE_SECONDS} s")
        seen, complaints = viewer.communicate(timeout=60)

    assert (ended["state"], ended["cell_id"]) == ("SUCCEEDED", other.cell_id)
    assert ended["execution_ids"][0] == job["execution_id"] != ended["execution_id"]
    assert remote.show(f"boatyard/{job['job_id']}:new.txt") == "x"
    assert seen == b"", complaints
    assert other.lines("show", job["execution_id"])[0]["reason"] == "NODE_LOST"

    def is_away() -> bool:
        return [cell["state"] for cell in other.lines("cells") if cell["cell_id"] == owner.cell_id] == ["AWAY"]

    eventually(is_away, "the cell is known to be away")
    refused = other.start("logs", job["execution_id"])
    _, complaints = refused.communicate(timeout=30)
    assert refused.returncode == 4
    assert owner.cell_id.encode() in complaints
    other.boatyard("cells", "forget", owner.cell_id)
    assert [cell["cell_id"] for cell in other.lines("cells")] == [other.cell_id]


def test_a_cell_that_stood_still_past_its_lease_changes_nothing_more(cells: Cells, remote: Remote) -> None:
    flag = remote.path.parent / "begun-once"
    job = cells[0].submit(remote.path, f"sh -c '{ONCE.format(flag=flag)}'; echo x > new.txt", "--sandbox", "none")
    owner, other = owner_of(cells, job["job_id"])
    eventually(flag.exists, "the agent has begun")
    owner.freeze()
    ended = other.result(job["job_id"], timeout=90)
    pushed = remote.git("rev-parse", f"boatyard/{job['job_id']}")
    owner.thaw()

    assert (ended["state"], ended["cell_id"]) == ("SUCCEEDED", other.cell_id)
    eventually(lambda: not processes.with_marker(str(flag)), "the old agent is ended")
    assert other.result(job["job_id"]) == ended
    assert remote.git("rev-parse", f"boatyard/{job['job_id']}") == pushed
    left = [each for each in other.lines("workspaces") if each["state"] == "ACTIVE"]
    eventually(lambda: not [e for e in other.lines("workspaces") if e["state"] == "ACTIVE"], f"is let go of: {left}")


def test_a_way_between_cells_that_swallows_everything_loses_and_doubles_no_event(cells: Cells, remote: Remote) -> None:
    owner, other = cells
    with linked(owner.address("gateway")) as link:
        owner.stop()
        owner.environment["BOATYARD_GATEWAY_ADVERTISED_ADDRESS"] = link.address
        owner.up()
        other.boatyard("pause", other.cell_id)
        job = other.submit(remote.path, COUNTING)
        with other.start("logs", "--follow", job["execution_id"]) as viewer:
            eventually(lambda: has_begun(other, job["execution_id"]), "it is seen from the other cell")
            link.forget()
            ended = other.result(job["job_id"])
            seen, complaints = viewer.communicate(timeout=60)
        assert seen == LINES, complaints
        assert other.output(job["execution_id"]) == LINES
    assert (ended["state"], ended["cell_id"]) == ("SUCCEEDED", owner.cell_id)
    assert ended["execution_ids"] == [job["execution_id"]]


def test_a_rolling_restart_fails_no_job(scratch: Path, postgres_url: str, remote: Remote) -> None:
    # A lease as in life: on a busy machine a restart takes longer than the short one.
    with running_cells(scratch, 2, postgres_url, lease_seconds=30) as cells:
        jobs = [cells[number % 2].submit(remote.path, "sleep 1; echo x > new.txt") for number in range(4)]
        for cell, other in (cells, cells[::-1]):
            other.boatyard("pause", "--until-start", cell.cell_id)
            cell.stop()
            jobs.append(other.submit(remote.path, "echo y > new.txt"))
            cell.up()

        ended = [cells[0].result(job["job_id"]) for job in jobs]
        assert [one["state"] for one in ended] == ["SUCCEEDED"] * len(jobs), ended
        assert {len(one["execution_ids"]) for one in ended} == {1}, "none was begun anew"
        assert [cell["state"] for cell in cells[1].lines("cells")] == ["ACTIVE", "ACTIVE"]


def answers(cell: SharingCell, job_id: str) -> bool:
    """Tell whether a cell has answers from its database several times over: connections that hung fail one by one."""
    return all(cell.boatyard("show", job_id, code=None) for _ in range(5))


@pytest.mark.parametrize("outage", [OwnPostgres.away, OwnPostgres.hanging])
def test_a_database_that_is_away_under_load_costs_no_job(
    scratch: Path,
    remote: Remote,
    own_postgres: OwnPostgres,
    outage: Callable[[OwnPostgres], AbstractContextManager[None]],
) -> None:
    lease_seconds = 8.0
    with running_cells(scratch, 2, own_postgres.url, lease_seconds=lease_seconds) as cells:
        jobs = [cells[number % 2].submit(remote.path, f"sleep {number % 4}; echo x > new.txt") for number in range(8)]
        with outage(own_postgres):
            refused = cells[0].start("ps")
            _, complaints = refused.communicate(timeout=30)
            assert refused.returncode == 4
            assert b"database" in complaints
            time.sleep(1.5 * lease_seconds)  # every lease runs out: each cell is to go on with its own all the same
        eventually(lambda: answers(cells[0], jobs[0]["job_id"]), "the database is used again")
        ended = [cells[0].result(job["job_id"], timeout=90) for job in jobs]

    assert [one["state"] for one in ended] == ["SUCCEEDED"] * len(jobs), ended
    assert {len(one["execution_ids"]) for one in ended} == {1}, "none was begun anew"


def test_cells_call_one_another_by_tls(scratch: Path, postgres_url: str, remote: Remote) -> None:
    subprocess.run([ROOT / "deploy" / "certificates.sh", scratch / "certificates"], check=True, capture_output=True)
    made = scratch / "certificates" / "cells"
    files = {
        "BOATYARD_GATEWAY_TLS_CERTIFICATE": made / "gateway.crt",
        "BOATYARD_GATEWAY_TLS_KEY": made / "gateway.key",
        "BOATYARD_GATEWAY_CA": made / "ca.crt",
    }
    with running_cells(scratch, 2, postgres_url, **{name: str(path) for name, path in files.items()}) as cells:
        job = cells[0].submit(remote.path, "echo seen; echo x > new.txt")
        assert cells[0].result(job["job_id"])["state"] == "SUCCEEDED"
        assert [cell.output(job["execution_id"]) for cell in cells] == [b"seen\n", b"seen\n"]
