"""Rows of docs/from-older-systems.md: the ticket system, its coordinator and its simple clients."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit import processes
from tests.kit.cell import Cell, eventually
from tests.kit.mounts import unmount_below
from tests.kit.older_systems import House, Rows

pytestmark = pytest.mark.slow

rows = Rows("Ticket system")
settings = Rows("Settings")
OF_SETTINGS = [row for row in settings.of_page if row.startswith(("`TERARCHITECT", "`PROJECT_ID"))]


@pytest.mark.parametrize("row", rows.of_page)
def test_row(house: House, row: str) -> None:
    rows.run(row, house)


@pytest.mark.parametrize("row", OF_SETTINGS)
def test_row_of_settings(house: House, row: str) -> None:
    settings.run(row, house)


ME = {"coordinator_id": "row-of-tickets"}


@contextmanager
def claimed(house: House, **spec: object) -> Iterator[dict[str, Any]]:
    """Yield a job of a project of its own, which a simple client has claimed while the cell takes none."""
    (project,) = house.cli("project", "create")
    of_project = {"project_id": project["project_id"]}
    house.cli("pause")
    try:
        job_id = house.submit("true", repository_id="", **of_project, **spec)
        job = house.call("CoordinatorService.ClaimJob", **ME, project_ids=[project["project_id"]])["job"]
        assert job["lease"]["job_id"] == job_id
        yield job
    finally:
        house.cli("resume")


@rows.row("`POST …/jobs/start`; 204 without a job")
def claim(house: House) -> None:
    with claimed(house) as job:
        assert job["execution_id"]
        house.call("CoordinatorService.CompleteJob", **ME, lease=job["lease"])
    nothing = house.call("CoordinatorService.ClaimJob", seconds=2, **ME, project_ids=["default"], kinds=["no-such"])
    assert "job" not in nothing


@rows.row("`GET …/worker-context`")
def work_context(house: House) -> None:
    waiting = house.item("--note", "a note")
    with claimed(house) as job:
        context = house.call("CoordinatorService.GetWorkContext", **ME, lease=job["lease"])
        assert context["job"]["job_id"] == job["lease"]["job_id"]
        assert context["project"]["project_id"] == context["job"]["spec"]["project_id"]
        assert context["agent"]["command"]["line"] == "true"
        house.call("CoordinatorService.CompleteJob", **ME, lease=job["lease"])
    assert waiting


@rows.row("`POST …/logs` with `session_id`, `step`, `summary`, `raw_output`")
def logs(house: House) -> None:
    note = {"session_id": "session-7", "step": "plan", "text": "It looked.", "output": "cmF3"}
    with claimed(house) as job:
        mine = {**ME, "lease": job["lease"]}
        event = {"sequence": "1", "time": "2026-01-02T03:04:05Z", "note": note}
        log = {"execution_id": job["execution_id"], "events": [event], "is_last": True}
        assert house.call("CoordinatorService.AppendEvents", **mine, **log)["next_sequence"] == "2"
        house.call("CoordinatorService.CompleteJob", **mine)
    (shown,) = house.cli("logs", job["execution_id"])
    assert (shown["session_id"], shown["step"], shown["text"]) == ("session-7", "plan", "It looked.")


@rows.row("`GET …/cancel-requested`")
def cancel_requested(house: House) -> None:
    with claimed(house) as job:
        mine = {**ME, "lease": job["lease"]}
        renewed = house.call("CoordinatorService.RenewLease", **ME, leases=[job["lease"]])
        assert (renewed["held_job_ids"], "cancel_requested_job_ids" in renewed) == ([job["lease"]["job_id"]], False)
        house.cli("cancel", job["lease"]["job_id"])
        renewed = house.call("CoordinatorService.RenewLease", **ME, leases=[job["lease"]])
        assert renewed["cancel_requested_job_ids"] == [job["lease"]["job_id"]]
        told = house.first("CoordinatorService.WatchCoordinator", **ME)
        assert told["cancel_requested_job_ids"] == [job["lease"]["job_id"]]
        failed = house.call("CoordinatorService.FailJob", **mine, reason="CANCELLED", message="as asked")["job"]
    assert failed["state"] == "STATE_CANCELLED"


@rows.row("`POST …/tickets/<id>/complete`, `POST …/jobs/<id>/complete`", "what such a client says of its result")
def complete(house: House) -> None:
    said = {"summary": "Mended.", "pull_request_url": "https://git.example/pull/7", "pull_request_number": "7"}
    said |= {"review_comment": "Look twice.", "branch": "mended", "commit_id": "ab" * 20}
    with claimed(house) as job:
        house.call("CoordinatorService.CompleteJob", **ME, lease=job["lease"], **said)
    ended = house.job(job["lease"]["job_id"])
    assert ended["state"] == "STATE_SUCCEEDED"
    assert {name: ended["output"][name] for name in said} == said
    assert (ended["output"]["reported"], ended["output"]["pushed"]) == (True, True)


@rows.row("`POST …/jobs/<id>/fail`")
def fail(house: House) -> None:
    with claimed(house) as job:
        house.call("CoordinatorService.FailJob", **ME, lease=job["lease"], reason="AGENT_FAILED", message="it broke")
    ended = house.job(job["lease"]["job_id"])
    assert (ended["state"], ended["reason"]) == ("STATE_FAILED", "AGENT_FAILED")
    assert ended["message"].startswith("it broke")


@rows.row("a ticket that moves to In Progress", "`POST /api/tasks/:id/stop`")
def moved(house: House) -> None:
    item = house.item("--worker", house.worker("sleep 60"))
    (made,) = house.cli("item", "move", item, "in-progress")
    assert house.call("CatalogService.GetWorkItem", work_item_id=item)["work_item"]["state"] == "STATE_IN_PROGRESS"
    job = house.until_at(made["job_id"], "agent")
    house.call("AgentRuntimeService.CancelExecution", execution_id=job["execution_ids"][-1])
    assert house.ended(made["job_id"])["state"] == "STATE_CANCELLED"
    assert house.call("CatalogService.GetWorkItem", work_item_id=item)["work_item"]["state"] == "STATE_TODO"


@rows.row("`POST /api/tasks/:id/run`, only of `todo`")
def only_todo(house: House) -> None:
    (project,) = house.cli("project", "create")
    of_project = ("--project", project["project_id"])
    house.cli("project", "update", project["project_id"], "--todo-only")
    (worker,) = house.cli("worker", "create", "--command", "true", *of_project)
    (item,) = house.cli("item", "create", "--title", "A ticket", *of_project)
    house.cli("item", "move", item["work_item_id"], "done")
    asked = {"worker_id": worker["worker_id"], "work_item_id": item["work_item_id"], "prompt": "Do it."}
    refused = house.refused("AgentRuntimeService.Execute", **asked)
    assert (refused.code, refused.reason) == ("failed_precondition", "WORK_ITEM_STATE")
    house.cli("item", "move", item["work_item_id"], "todo")
    assert house.ended(house.call("AgentRuntimeService.Execute", **asked)["job_id"])["state"] == "STATE_SUCCEEDED"


@rows.row("409 while another agent runs")
def one_at_a_time(house: House) -> None:
    (project,) = house.cli("project", "create", "--max-running", 1)
    first, second = (house.submit("sleep 60", repository_id="", project_id=project["project_id"]) for _ in range(2))
    house.until_at(first, "agent")
    waiting = house.job(second)["waiting_for"]
    assert (waiting["kind"], waiting["running_job_ids"]) == ("KIND_PROJECT_LIMIT", [first])
    for job_id in (second, first):
        house.cli("cancel", job_id)
    house.ended(first)


@rows.row("memory: `retrieve`, `index`")
def memory(house: House) -> None:
    services = house.cell.boatyard("--help").decode()
    assert "memory" not in services


@settings.row(*OF_SETTINGS)
@rows.row("`python -m coordinator`")
def coordinator(house: House) -> None:
    """It finds its gateway by address and token, and takes jobs of its project alone, while the cell takes none."""
    (project,) = house.cli("project", "create")
    (token,) = house.cli("token", "create", "--role", "coordinator")
    directory = Path(tempfile.mkdtemp(prefix="boatyard-e2e-"))
    remote = Cell(directory / "home")
    remote.command = "coordinator"
    remote.arguments = ("--id", "row-of-coordinators", "--upstream", house.cell.address("gateway"))
    remote.arguments += ("--capacity", "2", "--project", project["project_id"])
    remote.environment |= {"BOATYARD_TOKEN": token["secret"], "BOATYARD_INSECURE": "1"}
    house.cli("pause")
    try:
        remote.up()
        others = house.submit("true", repository_id="")
        job_id = house.submit("true", repository_id="", project_id=project["project_id"])
        job = house.ended(job_id)
        assert (job["state"], job["cell_id"]) == ("STATE_SUCCEEDED", "row-of-coordinators")
        assert house.job(others)["state"] == "STATE_PENDING"
        cells = {cell["cell_id"]: cell for cell in house.call("AdminService.ListCells")["cells"]}
        assert (cells["row-of-coordinators"]["kind"], cells["row-of-coordinators"]["capacity"]) == (
            "KIND_COORDINATOR",
            2,
        )
    finally:
        remote.down()
        unmount_below(remote.home)
        house.cli("resume")
    house.ended(others)
    eventually(lambda: not processes.with_environment({"BOATYARD_HOME": str(remote.home)}), "it is gone")
    shutil.rmtree(directory)
