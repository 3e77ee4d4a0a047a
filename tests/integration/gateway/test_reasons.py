"""What a node refuses in the middle of a job ends it with the node's own reason and its text, and with advice."""

import shlex

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.gateway.v1 import job_pb2, runtime_pb2

from services.common.reasons import REASONS
from tests.kit.hooks import FAIL, Hooks
from tests.kit.repos import Repo
from tests.kit.services import Services

FAILED = job_pb2.Job.STATE_FAILED
NOT_KEPT_APART = {"sandbox_tier": sandbox_pb2.SANDBOX_TIER_NONE}  # so that a job can break its own machine


@pytest.fixture
async def hooks(services: Services) -> Hooks:
    return await Hooks.of_new_project(services)


def removal(services: Services, *names: str) -> str:
    """Return a command that removes what is below git's directory."""
    paths = " ".join(shlex.quote(str(services.home.root / "git" / name)) for name in names)
    return f"chmod -R u+w {paths}; rm -rf {paths}"


def ends(job: job_pb2.Job, stage: str) -> str:
    """Return how a job ended, after checking that it did so in a stage, with advice behind the node's text."""
    assert job.state == FAILED
    (record,) = [record for record in job.timeline if record.name == stage]
    assert record.state == job_pb2.StageRecord.STATE_FAILED
    assert job.message == f"{record.message}; {REASONS[job.reason].advice}"
    return job.reason


async def test_a_base_that_is_removed_before_the_workspace_is_made(
    services: Services, hooks: Hooks, remote: Repo
) -> None:
    spec = await hooks.spec(remote)
    command = removal(services, f"bases/{spec['repository_id']}")
    await hooks("BEFORE", stage="workspace", command=command, failure_policy=FAIL)
    job = await services.run("true", **spec, agent=NOT_KEPT_APART)
    assert ends(job, "workspace") == "BASE_NOT_FOUND"
    assert "base '/" in job.message


async def test_a_workspace_without_a_repository(services: Services, hooks: Hooks, remote: Repo) -> None:
    await hooks("BEFORE", stage="branch", command="rm -rf .git", failure_policy=FAIL)
    job = await services.run("true", **await hooks.spec(remote))
    assert ends(job, "branch") == "NOT_A_REPOSITORY"


async def test_a_repository_that_the_machine_has_no_more(services: Services, hooks: Hooks, remote: Repo) -> None:
    spec = await hooks.spec(remote)
    mirror = f"mirrors/{spec['repository_id']}.git"
    job = await services.run(f"echo new > new; {removal(services, mirror)}", **spec, agent=NOT_KEPT_APART)
    assert ends(job, "take") == "REPOSITORY_NOT_FOUND"
    request = runtime_pb2.GetExecutionRequest(execution_id=job.execution_ids[0])
    execution = (await services.runtime.GetExecution(request)).execution
    assert (execution.state, execution.reason, execution.message) == (runtime_pb2.Execution.STATE_SUCCEEDED, "", "")


async def test_an_execution_has_the_advice_too(services: Services) -> None:
    job = await services.run("exit 3")
    request = runtime_pb2.GetExecutionRequest(execution_id=job.execution_ids[0])
    execution = (await services.runtime.GetExecution(request)).execution
    assert execution.message == "the program ended with exit code 3; `boatyard logs` shows what it wrote"
    assert (job.reason, job.message) == (execution.reason, execution.message)
