"""Rows of docs/from-older-systems.md: jobs, checkpoints and hooks."""

import pytest

from tests.kit.cell import eventually
from tests.kit.older_systems import House, Rows

pytestmark = pytest.mark.slow

rows = Rows("Jobs and checkpoints")
hooks = Rows("Hooks")

ASKS_BEFORE_PUSH = {"checkpoints": {"before": ["push"]}, "publish": "PUBLISH_PUSH"}


@pytest.mark.parametrize("row", rows.of_page)
def test_row(house: House, row: str) -> None:
    rows.run(row, house)


@pytest.mark.parametrize("row", hooks.of_page)
def test_row_of_hooks(house: House, row: str) -> None:
    hooks.run(row, house)


@rows.row("`POST /api/agent-jobs` with `jobType`, `taskDescription`, `inputData`, `priority`")
def created(house: House) -> None:
    spec = {"kind": "data-processing", "prompt": "Look.", "data": '{"of": 7}', "priority": 5, "project_id": "default"}
    spec |= {"agent": {"command": {"line": "cat"}}, "files": [{"name": "notes.txt", "content": "bm90ZXM="}]}
    job = house.call("JobService.CreateJob", spec=spec)["job"]
    asked = {name: job["spec"][name] for name in ("kind", "prompt", "data", "priority", "project_id")}
    assert asked == {name: spec[name] for name in asked}
    (submitted,) = house.cli(
        *("run", "--kind", "data-processing", "--data", '{"of": 7}', "--priority", 5, "--project", "default"),
        *("--command", "cat", "--detach", "Look."),
    )
    again = house.job(submitted["job_id"])["spec"]
    assert {name: again[name] for name in asked} == asked
    for job_id in (job["job_id"], submitted["job_id"]):
        house.until(job_id, lambda now: now["state"] == "STATE_AWAITING_APPROVAL")  # as this kind does
        house.cli("cancel", job_id)


@rows.row("`GET /api/agent-jobs`, `?status=`, `?jobType=`", "`?limit=10&offset=0`")
def listed(house: House) -> None:
    (project,) = house.cli("project", "create")
    of_project = {"project_id": project["project_id"]}
    made = [house.run("true", repository_id="", **of_project)["job_id"] for _ in range(2)]
    filter_ = {"states": ["STATE_SUCCEEDED"], "kinds": ["task"], **of_project}
    first = house.call("JobService.ListJobs", filter=filter_, page_size=1)
    second = house.call("JobService.ListJobs", filter=filter_, page_size=1, page_token=first["next_page_token"])
    assert [page["jobs"][0]["job_id"] for page in (first, second)] == made[::-1]
    assert (int(first["total_size"]), second.get("next_page_token")) == (2, None)
    shown = house.cli("ps", "--state", "succeeded", "--kind", "task", "--project", project["project_id"])
    assert [job["job_id"] for job in shown] == made[::-1]


@rows.row("`GET /api/agent-jobs/[id]`, with checkpoints, logs, timeline")
def one_job(house: House) -> None:
    job = house.job(house.done["job_id"])
    assert {"base", "agent", "verify", "push"} <= {stage["name"] for stage in job["timeline"]}
    (shown,) = house.cli("show", house.done["job_id"])
    assert [stage["name"] for stage in shown["timeline"]] == [stage["name"] for stage in job["timeline"]]
    assert any(event["kind"] == "output" for event in house.cli("logs", house.done["job_id"]))


@rows.row(
    "`GET /api/agent-jobs/[id]/checkpoints`",
    "the page of pending checkpoints, refreshed every 10 s",
    "`POST /api/admin/agent-checkpoints/[id]`",
    "`DELETE` of it, with `reason`",
    "`approvedBy`, `approvedAt`, `rejectionReason`",
)
def checkpoints(house: House) -> None:
    asking = [house.submit("echo new > new.txt", policy=ASKS_BEFORE_PUSH) for _ in range(2)]
    for job_id in asking:
        house.until(job_id, lambda job: job["state"] == "STATE_AWAITING_APPROVAL")
    approved, rejected = (
        house.call("CheckpointService.ListCheckpoints", job_id=job_id)["checkpoints"][0]["checkpoint_id"]
        for job_id in asking
    )
    pending = house.first("CheckpointService.WatchCheckpoints", job_id=asking[0])["checkpoint"]
    assert (pending["checkpoint_id"], pending["state"]) == (approved, "STATE_PENDING")
    house.call("CheckpointService.ApproveCheckpoint", checkpoint_id=approved)
    house.cli("reject", rejected, "--reason", "not so")
    assert house.ended(asking[0])["output"]["pushed"] is True
    refused = house.ended(asking[1])
    assert (refused["state"], refused["reason"]) == ("STATE_FAILED", "REJECTED")
    (decided,) = house.cli("checkpoints", "--job", asking[1], "--all")
    assert (decided["state"], decided["comment"], decided["decided_by"]) == ("REJECTED", "not so", "admin")
    assert decided["decide_time"]


@rows.row("PENDING, RUNNING, COMPLETED, FAILED")
def states_of_jobs(house: House) -> None:
    assert house.job(house.done["job_id"])["state"] == "STATE_SUCCEEDED"
    assert house.left["state"] == "STATE_FAILED"
    later = house.submit("true", repository_id="", delay="3600s")
    assert house.job(later)["state"] == "STATE_PENDING"
    house.cli("cancel", later)
    assert house.job(later)["state"] == "STATE_CANCELLED"


@rows.row("a job stuck in PENDING")
def why_it_waits(house: House) -> None:
    later = house.submit("true", repository_id="", delay="3600s")
    assert house.job(later)["waiting_for"]["kind"] == "KIND_NOT_BEFORE"
    (shown,) = house.cli("show", later)
    assert shown["waiting_for"]["kind"] == "NOT_BEFORE"
    house.cli("cancel", later)
    worker = house.worker("sleep 60", "--max-running", 1)
    first, second = (house.submit("", agent={}, repository_id="", worker_id=worker) for _ in range(2))
    house.until_at(first, "agent")
    waiting = house.job(second)["waiting_for"]
    assert (waiting["kind"], waiting["running_job_ids"]) == ("KIND_WORKER_LIMIT", [first])
    for job_id in (second, first):
        house.cli("cancel", job_id)
    house.ended(first)


@rows.row("`GET /api/admin/agent-worker`")
def the_cell(house: House) -> None:
    status, (cell,) = house.call("AdminService.GetStatus"), house.call("AdminService.ListCells")["cells"]
    assert (status["active_cells"], status["cell_id"]) == (1, cell["cell_id"])
    assert house.cli("status")[0]["active_cells"] == 1
    assert house.cli("cells")[0]["cell_id"] == cell["cell_id"]


@rows.row("`POST /api/admin/agent-worker`, `npm run worker:start`", "`DELETE /api/admin/agent-worker`")
def paused(house: House) -> None:
    (cell,) = house.cli("pause")
    assert house.cli("cells")[0]["state"] == "PAUSED"
    assert house.call("AdminService.ResumeCell", cell_id=cell["cell_id"])["cell"]["state"] == "STATE_ACTIVE"
    house.call("AdminService.PauseCell", cell_id=cell["cell_id"])
    assert house.cli("resume")[0]["state"] == "ACTIVE"
    refused = house.refused("AdminService.StopCell", cell_id="cell-none")
    assert refused.reason == "CELL_NOT_FOUND"


@rows.row("both, one after the other")
def restarted(house: House) -> None:
    job_id = house.submit("sleep 2; echo went on", repository_id="")
    house.until_at(job_id, "agent")
    before = house.cell.service_pid("execution")
    (cell,) = house.cli("cells", "restart")
    assert cell["cell_id"] == house.call("AdminService.GetStatus")["cell_id"] if house.is_up() else True
    house.cell.await_restart("execution", before)
    eventually(house.is_up, "the gateway answers again")
    job = house.ended(job_id)
    assert (job["state"], len(job["execution_ids"])) == ("STATE_SUCCEEDED", 1)


@rows.row("`npm run worker:check-db`")
def database(house: House) -> None:
    assert house.call("AdminService.CheckDatabase")["kind"] == "sqlite"
    url = f"sqlite:///{house.cell.home}/gateway/gateway.db"
    found = {finding["check"]: finding for finding in house.cli("doctor", "--database-url", url, code=None)}
    assert found["database"]["status"] == "ok"


@hooks.row("`registerPreExecutionHook` and its `false`", "`unregisterHook(type, id)`")
def pre_hook(house: House) -> None:
    (project,) = house.cli("project", "create")
    of_project = {"project_id": project["project_id"]}
    hook = house.call("HookService.CreateHook", hook={**of_project, "event": "EVENT_PRE", "command": "false"})["hook"]
    vetoed = house.run("true", repository_id="", **of_project)
    assert (vetoed["state"], vetoed["reason"]) == ("STATE_FAILED", "VETOED")
    house.cli("hook", "delete", hook["hook_id"])
    (hook,) = house.cli("hook", "create", "--event", "pre", "--command", "true", "--project", project["project_id"])
    assert house.run("true", repository_id="", **of_project)["state"] == "STATE_SUCCEEDED"
    assert house.call("HookService.DeleteHook", hook_id=hook["hook_id"]) == {}


@hooks.row("`registerPostExecutionHook`", "`registerErrorHook`")
def later_hooks(house: House) -> None:
    (project,) = house.cli("project", "create")
    of_project = {"project_id": project["project_id"]}
    post = {"event": "EVENT_POST", "command": "grep -q STATE_SUCCEEDED", **of_project}
    house.call("HookService.CreateHook", hook=post)
    (error,) = house.cli(
        *("hook", "create", "--event", "error", "--on-cancel", "--command", "grep -q STATE_CANCELLED"),
        *("--project", project["project_id"]),
    )
    assert error["on_cancel"] is True
    house.run("true", repository_id="", **of_project)
    running = house.submit("sleep 60", repository_id="", **of_project)
    house.until_at(running, "agent")
    house.cli("cancel", running)
    house.ended(running)

    def calls() -> list[tuple[str, str]]:
        made = house.call("HookService.ListHookCalls", **of_project).get("calls", [])
        return sorted((call["event"], call["state"]) for call in made if call["state"] != "STATE_RUNNING")

    told = [("EVENT_ERROR", "STATE_DONE"), ("EVENT_POST", "STATE_DONE")]
    eventually(lambda: calls() == told, f"{told} were called")
