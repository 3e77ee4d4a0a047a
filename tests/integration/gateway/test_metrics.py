"""What Prometheus reads of a real cell, and who may."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from boatyard.access.v1 import access_pb2
from boatyard.agent.v1 import sandbox_pb2
from boatyard.gateway.v1 import auth_pb2, auth_pb2_grpc, job_pb2

from services.common.rpc.channel import open_channel
from tests.kit.cell import NOT_KEPT_APART
from tests.kit.contract import ROOT
from tests.kit.metrics import Scraped, get
from tests.kit.repos import Repo
from tests.kit.services import Services, running_services

SERVICES = {"gateway", "workspace", "git", "execution"}


@pytest.fixture(scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with running_services(tmp_path_factory.mktemp("cell"), **NOT_KEPT_APART) as running:
        yield running


def scraped(services: Services) -> Scraped:
    return Scraped(services.address("http"), services.home.admin_token())


async def until(services: Services, holds: Callable[[Scraped], object]) -> Scraped:
    """Scrape until something holds: on a busy machine a node may not answer within its two seconds."""
    async with asyncio.timeout(60):
        while not holds(found := await asyncio.to_thread(scraped, services)):
            await asyncio.sleep(0.1)
    return found


def whole(found: Scraped) -> bool:
    """Whether everybody has told everything."""
    everybody = found.value("boatyard_up") == len(SERVICES)
    return everybody and {"boatyard_jobs", "boatyard_git_bases", "boatyard_executions_active"} <= {
        family.name for family in found.families
    }


async def test_one_scrape_tells_of_every_service_of_the_cell(services: Services) -> None:
    found = await until(services, whole)
    for service in SERVICES:
        assert found.value("boatyard_up", service=service) == 1
        assert found.value("boatyard_process_resident_memory_bytes", service=service) > 1 << 20
    method = "boatyard.metrics.v1.MetricsService/ReadMetrics"
    await until(services, lambda found: found.value("boatyard_rpc_total", service="git", method=method, code="OK"))


async def test_every_metric_is_told_once_with_its_type_and_its_meaning(services: Services) -> None:
    found = await until(services, whole)
    names = [family.name for family in found.families]
    assert len(names) == len(set(names))
    assert [family.name for family in found.families if not family.documentation or family.type == "unknown"] == []
    samples = [(sample.name, *sorted(sample.labels.items())) for family in found.families for sample in family.samples]
    assert len(samples) == len(set(samples))


async def test_whoever_shows_no_token_or_the_wrong_one_is_told_so_in_a_sentence(services: Services) -> None:
    status, text = get(services.address("http"), "/metrics")
    assert (status, text) == (
        401,
        "a bearer token is needed: the first administrator's is in $BOATYARD_HOME/token, for its owner\n",
    )
    status, text = get(services.address("http"), "/metrics", "wrong")
    assert status == 401
    assert text.startswith("this token is not known here")


@pytest.mark.parametrize(
    ("role", "projects", "status"),
    [("VIEWER", [], 200), ("COORDINATOR", [], 403), ("VIEWER", ["default"], 403)],
)
async def test_it_takes_a_viewer_of_all_projects(
    services: Services, role: str, projects: list[str], status: int
) -> None:
    async with open_channel(services.address("gateway"), services.home.admin_token()) as channel:
        token = auth_pb2.Token(name="prometheus", role=access_pb2.Role.Value(f"ROLE_{role}"), project_ids=projects)
        request = auth_pb2.CreateTokenRequest(token=token)
        made = await auth_pb2_grpc.TokenServiceStub(channel).CreateToken(request)
    assert get(services.address("http"), "/metrics", made.secret)[0] == status


async def test_health_is_for_everybody_and_all_else_is_nowhere(services: Services) -> None:
    assert get(services.address("http"), "/healthz") == (200, "ok\n")
    assert get(services.address("http"), "/etc/passwd")[0] == 404
    assert scraped(services).value("boatyard_http_requests_total", path="other", code="404") == 1


@pytest.mark.slow
async def test_a_node_that_is_away_is_told_of_and_takes_nothing_from_the_others(services: Services) -> None:
    await until(services, whole)
    services.end("git", signal.SIGKILL)
    told = dict.fromkeys(SERVICES, 1) | {"git": 0}
    found = await until(
        services, lambda found: {name: found.value("boatyard_up", service=name) for name in SERVICES} == told
    )
    assert found.value("boatyard_process_open_fds", service="execution") > 0
    assert found.value("boatyard_process_open_fds", service="git") == 0
    services.start("git")
    await services.serving("git")
    await until(services, whole)


async def test_after_a_job_the_numbers_say_so(services: Services, tmp_path: Path) -> None:
    before = await until(services, whole)
    repository_id = await services.repository(Repo.sample(tmp_path / "repo"))
    job = await services.run("echo hello; sleep 0.2", repository_id=repository_id)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    failed = await services.run("exit 3")
    assert failed.state == job_pb2.Job.STATE_FAILED
    after = await until(services, whole)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("agent_jobs_total", status="SUCCEEDED") == 1
    assert grown("agent_jobs_total", status="FAILED") == 1
    assert grown("boatyard_jobs_ended_total", state="FAILED", reason="AGENT_FAILED") == 1
    assert grown("agent_jobs_duration_seconds_count", status="SUCCEEDED") == 1
    assert grown("agent_jobs_duration_seconds_count", status="FAILED") == 1
    assert get(services.address("http"), "/api/metrics", services.home.admin_token())[0] == 200
    assert grown("agent_jobs_duration_seconds_sum", status="SUCCEEDED") > 0.2
    assert grown("boatyard_job_attempts_total") == 2
    assert grown("boatyard_executions_started_total", purpose="AGENT") == 2
    assert grown("boatyard_executions_ended_total", purpose="AGENT", state="SUCCEEDED") == 1
    assert grown("boatyard_execution_output_bytes_total") >= len("hello\n")
    assert grown("boatyard_execution_memory_peak_bytes_count") >= 1
    assert grown("boatyard_workspaces_made_total") == 2
    assert after.value("boatyard_workspaces_disk_free_bytes") > 0
    assert grown("boatyard_git_fetch_seconds_count") >= 1
    method = "boatyard.execution.v1.ExecutionService/StartExecution"
    assert grown("boatyard_rpc_total", service="execution", method=method, code="OK") >= 2


@pytest.mark.slow
async def test_what_runs_is_told_while_it_does(services: Services, tmp_path: Path) -> None:
    release = tmp_path / "release"
    tier = {"sandbox_tier": sandbox_pb2.SANDBOX_TIER_NONE}
    running = await services.submit(f"while ! test -e {release}; do sleep 0.05; done", agent=tier)

    def told(found: Scraped) -> bool:
        return (
            found.value("agent_worker_active_jobs") == 1
            and found.value("boatyard_jobs", state="RUNNING") == 1
            and found.value("boatyard_executions_active") == 1
            and found.value("boatyard_executions_active_memory_bytes") > 0
        )

    await until(services, told)
    release.touch()
    await services.ended(running.job_id)
    await until(services, lambda found: found.value("agent_worker_active_jobs") == 0)


async def test_every_metric_is_documented_and_every_documented_one_is_there(services: Services) -> None:
    documented = re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(set(documented)) == sorted(documented)
    found = await until(services, whole)
    assert set(documented) == set(re.findall(r"^# TYPE ([a-z_]+) ", found.text, re.MULTILINE))
