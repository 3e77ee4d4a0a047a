"""A cell is paused, restarted and stopped by calls, and checked without being up, on real processes."""

import json
from pathlib import Path

import pytest

from tests.integration.supervisor.test_up_and_down import SERVICES, attempt, cell  # noqa: F401 - a fixture
from tests.kit import processes
from tests.kit.cell import Cell, eventually
from tests.kit.repos import Repo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cell")]


def pids(cell: Cell) -> dict[str, int]:  # noqa: F811
    return {service: cell.service_pid(service) for service in SERVICES}


def test_a_cell_is_paused_restarted_and_stopped_by_calls(cell: Cell, tmp_path: Path) -> None:  # noqa: F811
    cell.up()
    (paused,) = cell.lines("pause")
    (listed,) = cell.lines("cells")
    assert paused["cell_id"] == listed["cell_id"], "without a cell it is this one"
    assert listed["state"] == "PAUSED"
    (resumed,) = cell.lines("resume")
    assert resumed["state"] == "ACTIVE"

    job = cell.submit(Repo.sample(tmp_path / "repo").path, "sleep 3; echo done")["job_id"]
    eventually(lambda: state_of(cell, job) == "RUNNING", "the agent runs")
    before = pids(cell)
    (told,) = cell.lines("cells", "restart")
    assert told["cell_id"] == listed["cell_id"]
    eventually(lambda: not set(pids_or_none(cell).values()) & {*before.values(), None}, "all services are new ones")
    eventually(lambda: state_of(cell, job) == "SUCCEEDED", "its agent went on", timeout=90)
    assert len(cell.lines("show", job)[0]["execution_ids"]) == 1

    done = attempt(cell, "cells", "stop", listed["cell_id"], "--agents")
    assert done.returncode == 0, done.stderr
    assert cell.process
    assert cell.process.wait(timeout=60) == 0
    refused = attempt(cell, "cells", "stop")
    assert refused.returncode == 4


def pids_or_none(cell: Cell) -> dict[str, int | None]:  # noqa: F811
    found = {
        service: processes.matching(f"services.{service}", {"BOATYARD_HOME": str(cell.home)}) for service in SERVICES
    }
    return {service: one[0] if len(one) == 1 else None for service, one in found.items()}


def state_of(cell: Cell, job: str) -> str:  # noqa: F811
    shown = attempt(cell, "show", job, "--json")
    return "" if shown.returncode else str(json.loads(shown.stdout)["state"])


def checked(cell: Cell, *arguments: str) -> dict[str, dict[str, str]]:  # noqa: F811
    shown = attempt(cell, "doctor", "--json", *arguments)
    return {finding["check"]: finding for finding in map(json.loads, shown.stdout.splitlines())}


def test_without_a_cell_the_doctor_checks_the_database_and_has_the_services_look(cell: Cell) -> None:  # noqa: F811
    found = checked(cell)
    assert (found["services"]["status"], found["database"]["status"]) == ("warn", "ok")
    assert "the first `boatyard up` makes" in found["database"]["message"]
    assert "workspaces" not in found
    full = checked(cell, "--full")
    assert {"workspaces", "repositories", "agents: sandbox", "agents: may choose", "database"} <= full.keys()
    assert not cell.home.exists(), "nothing was made"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/at/all.db", "cannot make the database"),
        ("postgresql://boatyard@127.0.0.1:1/boatyard", "cannot be used"),
        ("mysql://db.example/boatyard", "not mysql"),
    ],
)
def test_a_database_that_no_gateway_could_use_is_told_of_in_one_line(cell: Cell, url: str, said: str) -> None:  # noqa: F811
    found = checked(cell, "--database-url", url)["database"]
    assert found["status"] == "fail"
    assert said in found["message"]
    assert "Traceback" not in found["message"]


def test_a_database_is_checked_as_it_is(cell: Cell, tmp_path: Path) -> None:  # noqa: F811
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    (tmp_path / "gateway.db").touch(mode=0o600)
    assert "empty" in checked(cell, "--database-url", url)["database"]["message"]
    cell.up(BOATYARD_DATABASE_URL=url)
    cell.down()
    found = checked(cell, "--database-url", url)["database"]
    assert (found["status"], "schema version 00" in found["message"]) == ("ok", True)
