"""Rows of docs/from-older-systems.md: settings and metrics."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.kit.cell import eventually
from tests.kit.older_systems import House, Rows, printed
from tests.kit.processes import event_bytes

pytestmark = pytest.mark.slow

rows = Rows("Settings")
metrics = Rows("Metrics")


PATHS = ("/metrics", "/api/metrics")
ELSEWHERE = ("`TERARCHITECT", "`PROJECT_ID")
"""Rows that a coordinator runs: those of test_page_tickets.py."""


@pytest.mark.parametrize("row", [row for row in rows.of_page if not row.startswith(ELSEWHERE)])
def test_row(house: House, row: str) -> None:
    rows.run(row, house)


@pytest.mark.parametrize("row", metrics.of_page)
def test_row_of_metrics(house: House, row: str) -> None:
    metrics.run(row, house)


@rows.row("`DATABASE_URL`")
def database_url(house: House) -> None:
    """It is the setting's database that a cell would use, and the doctor looks at."""
    before = dict(house.cell.environment)
    house.cell.environment |= {
        "BOATYARD_DATABASE_URL": "mysql://db.example/boatyard",
        "BOATYARD_HOME": f"{house.cell.home}-of-none",
    }
    try:
        found = {finding["check"]: finding for finding in house.cli("doctor", code=1)}
    finally:
        house.cell.environment = before
    assert found["database"]["status"] == "fail"
    assert "not mysql" in found["database"]["message"]


@rows.row("`workspaceBaseDir`, `WORKSPACE_PATH`")
def all_below_home(house: House) -> None:
    job = house.left
    workspace = house.call("AgentRuntimeService.GetWorkspace", workspace_id=job["workspace_id"])["workspace"]
    assert Path(workspace["path"]).is_relative_to(house.cell.environment["BOATYARD_HOME"])


@rows.row("`maxConcurrentAgents`, `maxConcurrentJobs`, `MAX_CONCURRENT_AGENTS`")
def capacity(house: House) -> None:
    (cell,) = house.call("AdminService.ListCells")["cells"]
    assert cell["capacity"] == 3
    assert "--capacity" in house.cell.boatyard("coordinator", "--help").decode()


@rows.row("`agentTimeoutMs`, `WORKER_TIMEOUT_SEC`")
def timeout(house: House) -> None:
    worker = house.worker("sleep 60", "--timeout", 1)
    (*_, result) = house.cli("run", "--worker", worker, "Sleep.", code=1)
    assert (result["state"], result["reason"]) == ("FAILED", "TIMED_OUT")


@rows.row("`claudeModel`, `WORKER_MODEL`", "`anthropicApiKey`, `ANTHROPIC_API_KEY`")
def model_and_key(house: House) -> None:
    """The provider answers its own key alone, which is in the environment of `boatyard up`."""
    (worker,) = house.cli("worker", "create", "--engine", "anthropic", "--model", "named-model")
    models = []
    for more in ((), ("--worker", worker["worker_id"])):
        (*_, result) = house.cli("run", "--engine", "anthropic", *more, "Say it.")
        models += {event["model"] for event in house.cli("logs", result["execution_id"]) if event.get("model")}
    assert models == ["claude-haiku-5-5", "named-model"]


@rows.row("`AGENT_COMMAND`")
def agent_command(house: House) -> None:
    """Of the machine, for jobs that name none; or of a worker, or of a job."""
    for more, said in (
        ((), "this is AGENT_COMMAND"),
        (("--worker", house.worker("echo of the worker")), "of the worker"),
        (("--command", "echo of the job"), "of the job"),
    ):
        (*_, result) = house.cli("run", *more, "Say it.")
        assert house.execution(result["execution_id"])["output"]["summary"] == said


@rows.row("`MAX_LOG_LINES`")
def all_lines(house: House) -> None:
    job = house.run("seq 20000", repository_id="")
    events = house.cell.lines("logs", job["job_id"])
    output = b"".join(event_bytes(event) for event in events if event["kind"] == "output")
    assert output.decode().split() == [str(number) for number in range(1, 20001)]


@rows.row("`pollInterval`, `POLL_INTERVAL_SEC`")
def claims_wait(house: House) -> None:
    """A claim that was made before there is a job is answered when there is one."""
    (project,) = house.cli("project", "create")
    house.cli("pause")
    claim = {"coordinator_id": "row-of-polls", "project_ids": [project["project_id"]]}
    command = house.curl("CoordinatorService.ClaimJob", seconds=60, **claim)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as claiming:
        job_id = house.submit("true", repository_id="", project_id=project["project_id"])
        answer, _ = claiming.communicate(timeout=60)
    house.cli("resume")
    assert f'"{job_id}"' in answer
    house.cli("cancel", job_id)


@rows.row("`AGENT_IMAGE`")
def image(house: House) -> None:
    (template,) = house.cli(
        "template", "create", "--command", "true", "--image", "registry.example/agents:1", "--sandbox", "container"
    )
    assert template["agent"]["image"] == "registry.example/agents:1"
    assert template["agent"]["sandbox_tier"] == "CONTAINER"


@rows.row("`GITHUB_TOKEN`")
def repository_token(house: House) -> None:
    secret = house.cell.home.parent / "github-token"
    secret.write_text("ghp-of-the-row\n")
    url = "https://git.example/one/app"
    (made,) = house.cli("repository", "create", "--url", url, "--token", f"@{secret}")
    shown = house.call("CatalogService.GetRepository", repository_id=made["repository_id"])["repository"]
    assert (shown["has_token"], shown.get("token", "")) == (True, "")


def values(house: House, name: str) -> dict[str, float]:
    """Return the samples of a metric by what is between the braces; the same at both paths."""
    pattern = re.compile(rf"^{name}(?:{{(.*)}})? (.*)$", re.MULTILINE)
    found = [{labels: float(value) for labels, value in pattern.findall(house.http(path))} for path in PATHS]
    printed(f"$ curl {PATHS[1]} | grep {name}\n{found[1]}")
    assert found[0].keys() == found[1].keys()
    return found[1]


@metrics.row("`agent_jobs_total{status}`", "`agent_jobs_duration_seconds{status}`")
def jobs_total(house: House) -> None:
    assert house.left["state"] == "STATE_FAILED"
    eventually(lambda: values(house, "agent_jobs_total")['status="FAILED"'] >= 1, "it is counted")
    assert values(house, "agent_jobs_duration_seconds_count")['status="FAILED"'] >= 1
    assert values(house, "agent_jobs_duration_seconds_sum")['status="FAILED"'] > 0


@metrics.row("`agent_checkpoints_total{status}`, `agent_checkpoints_pending`")
def checkpoints_total(house: House) -> None:
    job_id = house.submit("true", policy={"checkpoints": {"before": ["base"]}})
    house.until(job_id, lambda job: job["state"] == "STATE_AWAITING_APPROVAL")
    eventually(lambda: values(house, "agent_checkpoints_pending")[""] >= 1, "it is pending")
    assert values(house, "agent_checkpoints_total")['status="PENDING"'] >= 1
    house.cli("cancel", job_id)


@metrics.row("`agent_worker_active_jobs`")
def active_jobs(house: House) -> None:
    job_id = house.submit("sleep 60", repository_id="")
    house.until_at(job_id, "agent")
    eventually(lambda: sum(values(house, "agent_worker_active_jobs").values()) == 1, "it is active")
    house.cli("cancel", job_id)
    house.ended(job_id)
