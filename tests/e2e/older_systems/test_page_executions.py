"""Rows of docs/from-older-systems.md: executions."""

import pytest

from tests.kit.older_systems import House, Rows, data_of
from tests.kit.processes import event_bytes, with_marker

pytestmark = pytest.mark.slow

rows = Rows("Executions")


@pytest.mark.parametrize("row", rows.of_page)
def test_row(house: House, row: str) -> None:
    rows.run(row, house)


@rows.row("`POST /api/agent-runtime/execute` with `workerId`, `workItemId`, `prompt`; 201 `{executionId}`")
def executed(house: House) -> None:
    asked = {"worker_id": house.worker("true"), "work_item_id": house.item(), "prompt": "Do it."}
    made = house.call("AgentRuntimeService.Execute", **asked)
    assert made.keys() == {"execution_id", "job_id"}
    assert house.ended(made["job_id"])["execution_ids"] == [made["execution_id"]]


@rows.row("400: a field is missing")
def field_missing(house: House) -> None:
    refused = house.refused("AgentRuntimeService.Execute")
    assert (refused.code, refused.reason) == ("invalid_argument", "INVALID_FIELDS")
    assert all(field in refused.message for field in ("worker_id", "work_item_id", "prompt"))
    item = house.item("--worker", house.worker("true"))
    (moved,) = house.cli("item", "move", item, "in-progress")
    assert moved["job_id"]
    assert house.ended(moved["job_id"])["state"] == "STATE_SUCCEEDED"


@rows.row("404: no such worker or work item")
def no_such_worker(house: House) -> None:
    item, worker = house.left["spec"]["work_item_id"], house.left["spec"]["worker_id"]
    asked = {"worker_id": "nobody", "work_item_id": item, "prompt": "x"}
    refused = house.refused("AgentRuntimeService.Execute", **asked)
    assert (refused.code, refused.reason) == ("not_found", "WORKER_NOT_FOUND")
    refused = house.refused("AgentRuntimeService.Execute", **asked | {"worker_id": worker, "work_item_id": "none"})
    assert (refused.code, refused.reason) == ("not_found", "WORK_ITEM_NOT_FOUND")


@rows.row(
    "409: an agent is already running, with its task",
    "`POST /api/agent-runtime/executions/:id/cancel`; 409 when it has ended",
)
def busy_and_cancelled(house: House) -> None:
    asked = {"worker_id": house.worker("sleep 60"), "work_item_id": house.item(), "prompt": "x"}
    running = house.call("AgentRuntimeService.Execute", **asked)
    refused = house.refused("AgentRuntimeService.Execute", **asked)
    assert (refused.code, refused.reason) == ("failed_precondition", "WORK_ITEM_BUSY")
    assert refused.metadata["job_id"] == running["job_id"]
    house.call("AgentRuntimeService.CancelExecution", execution_id=running["execution_id"])
    assert house.ended(running["job_id"])["state"] == "STATE_CANCELLED"
    refused = house.refused("AgentRuntimeService.CancelExecution", execution_id=running["execution_id"])
    assert (refused.code, refused.reason) == ("failed_precondition", "JOB_STATE")


@rows.row("`GET /api/agent-runtime/executions/:id`")
def one_execution(house: House) -> None:
    assert house.execution(house.done["execution_id"])["job_id"] == house.done["job_id"]
    (shown,) = house.cli("show", house.done["execution_id"])
    assert shown["execution_id"] == house.done["execution_id"]
    refused = house.refused("AgentRuntimeService.GetExecution", execution_id="exec-none")
    assert (refused.code, refused.reason) == ("not_found", "EXECUTION_NOT_FOUND")


@rows.row("`findByWorkerId`, `findByWorkItemId`")
def executions_of(house: House) -> None:
    for field in ("worker_id", "work_item_id"):
        asked = {field: house.done[field], "states": ["STATE_SUCCEEDED"], "purposes": ["PURPOSE_AGENT"]}
        (found,) = house.call("AgentRuntimeService.ListExecutions", **asked)["executions"]
        assert found["execution_id"] == house.done["execution_id"]
        asked["states"] = ["STATE_FAILED"]
        assert house.call("AgentRuntimeService.ListExecutions", **asked).get("executions", []) == []


@rows.row("`id`, `workerId`, `workItemId`, `workspaceId`, `templateId`")
def ids_of_an_execution(house: House) -> None:
    execution = house.execution(house.left["execution_ids"][0])
    spec = house.left["spec"]
    assert [execution[name] for name in ("worker_id", "work_item_id")] == [spec["worker_id"], spec["work_item_id"]]
    assert execution["workspace_id"] == house.left["workspace_id"]
    assert execution["template_id"].startswith("template-")


@rows.row("`status`: pending, running, success, error, cancelled", "`errorMessage`")
def state_and_message(house: House) -> None:
    failed = house.execution(house.left["execution_ids"][0])
    assert (house.done["state"], failed["state"]) == ("STATE_SUCCEEDED", "STATE_FAILED")
    assert failed["reason"] == "AGENT_FAILED"
    assert failed["message"].startswith("the program ended with exit code 3")


@rows.row("`createdAt`, `startedAt`, `completedAt`, `durationMs`")
def times_of_an_execution(house: House) -> None:
    assert house.done["create_time"] <= house.done["start_time"] <= house.done["end_time"]
    assert float(house.done["duration"].removesuffix("s")) > 0


@rows.row("`output.summary`, `filesChanged`, `diff`")
def result_of_an_execution(house: House) -> None:
    output = house.done["output"]
    assert output["summary"] == "all is said"
    assert [(change["path"], change["change"]) for change in output["files_changed"]] == [("new.txt", "CHANGE_ADDED")]
    assert "+new" in output["diff"]
    whole = house.calls("AgentRuntimeService.ReadDiff", execution_id=house.done["execution_id"])
    assert data_of(whole).decode() == output["diff"]


@rows.row("`output.testsRun`, `testsPassed`")
def tests_of_an_execution(house: House) -> None:
    assert house.done["output"]["verification"]["passed"] is True
    (shown,) = house.cli("show", house.done["job_id"])
    assert (shown["tests_run"], shown["tests_passed"]) == (True, True)


@rows.row("`output.logs`", "the WebSocket of a task; the last 50 lines")
def logs_of_an_execution(house: House) -> None:
    execution_id = house.done["execution_id"]
    assert house.done["output"]["log_tail"] == "all is said\n"
    lines = [event_bytes(event) for event in house.cli("logs", execution_id) if event["kind"] == "output"]
    assert b"".join(lines) == b"all is said\n"
    watched = house.calls("AgentRuntimeService.WatchExecution", execution_id=execution_id, follow=True)
    events = [event for answer in watched for event in answer.get("events", [])]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert watched[-1]["end"]["state"] == "STATE_SUCCEEDED"


@rows.row("`tokensUsed`, `costUsd`, `toolCallsCount`")
def use_of_an_execution(house: House) -> None:
    output = house.run("", agent={"anthropic": {}}, repository_id="")["output"]
    assert (output["tokens_used"], output["tool_calls"]) == ("1100", 0)
    assert output["cost_usd"] > 0


@rows.row("`POST /api/tasks/:id/run`; 200 `{status, pid}`", "`POST /api/tasks/:id/stop`; SIGTERM, 5 s, SIGKILL")
def run_and_stopped(house: House) -> None:
    marker = "sleep 4711"
    asked = {"worker_id": house.worker(f"setsid -f {marker}; {marker}"), "work_item_id": house.item(), "prompt": "x"}
    running = house.call("AgentRuntimeService.Execute", **asked)
    house.until_at(running["job_id"], "agent")
    house.call("AgentRuntimeService.CancelExecution", execution_id=running["execution_id"])
    assert house.ended(running["job_id"])["state"] == "STATE_CANCELLED"
    assert with_marker(marker) == []
