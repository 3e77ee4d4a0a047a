"""Error hooks of jobs that are cancelled: only those that say so are called, and they find out what it was."""

import pytest
from boatyard.gateway.v1 import hook_pb2, job_pb2
from google.protobuf.duration_pb2 import Duration

from services.common.errors import Invalid
from tests.integration.gateway.hooks.test_calls import CANCELLED, FAILED, project, register  # noqa: F401 - fixtures
from tests.kit.catalog import refusal
from tests.kit.hooks import DONE, Hooks, hook_calls
from tests.kit.receiver import receiver
from tests.kit.services import Services

pytestmark = pytest.mark.slow


async def cancelled_while(services: Services, stage: str, **spec: object) -> job_pb2.Job:
    """Submit a job, cancel it when a stage has begun, and return it as it ended."""
    job = await services.submit("sleep 60", **spec)

    def begun(now: job_pb2.Job) -> bool:
        return any(each.name == stage for each in now.timeline)

    await services.until(job.job_id, begun)
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    return await services.ended(job.job_id, timeout=30)


@pytest.mark.parametrize("kind", ["command", "webhook"])
async def test_a_cancelled_job_calls_the_error_hooks_that_ask_for_it(
    services: Services,
    project: str,  # noqa: F811
    register: Hooks,  # noqa: F811
    kind: str,
) -> None:
    async with receiver() as server:
        await register("ERROR", command="exit 1")
        if kind == "webhook":
            await register.web("ERROR", server.url, on_cancel=True)
        else:
            await register("ERROR", command='grep -q "STATE_CANCELLED"', on_cancel=True)
        job = await cancelled_while(services, "agent", project_id=project)
        failed = await services.run("exit 3", project_id=project)
    assert (job.state, job.reason, list(hook_calls(job))) == (CANCELLED, "", ["error-hook-2"])
    assert hook_calls(job)["error-hook-2"][0] == DONE
    assert (failed.state, len(hook_calls(failed))) == (FAILED, 2), "a failure calls them all"
    if kind == "webhook":
        told, of_failure = server.received
        assert (told.json["type"], told.json["data"]["job"]["state"]) == ("job.error", "STATE_CANCELLED")
        assert of_failure.json["data"]["job"]["state"] == "STATE_FAILED"


async def test_a_job_that_waits_for_a_person_calls_them_too(services: Services, project: str, register: Hooks) -> None:  # noqa: F811
    await register("ERROR", command="true", on_cancel=True)
    policy = {"checkpoints": {"before": ["base"]}}
    job = await cancelled_while(services, "approval-base", project_id=project, policy=policy)
    assert (job.state, list(hook_calls(job))) == (CANCELLED, ["error-hook-1"])


@pytest.mark.parametrize("waits", ["for its first turn", "for its retry"])
async def test_a_job_that_nobody_has_is_taken_to_call_them(
    services: Services,
    project: str,  # noqa: F811
    register: Hooks,  # noqa: F811
    waits: str,
) -> None:
    await register("ERROR", command='grep -q "STATE_CANCELLED"', on_cancel=True)
    if waits == "for its retry":
        policy = {"max_attempts": 9, "retry_on": ["AGENT_FAILED"]}
        job = await services.submit("exit 3", project_id=project, policy=policy)
        await services.until(job.job_id, lambda now: len(now.execution_ids) > 1)
    else:
        job = await services.submit("true", project_id=project, delay=Duration(seconds=3600))
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    job = await services.ended(job.job_id, timeout=30)
    assert (job.state, job.reason, list(hook_calls(job))) == (CANCELLED, "", ["error-hook-1"])
    assert hook_calls(job)["error-hook-1"][0] == DONE


async def test_without_one_that_asks_for_it_nobody_is_called(services: Services, project: str, register: Hooks) -> None:  # noqa: F811
    await register("ERROR", command="true")
    job = await cancelled_while(services, "agent", project_id=project)
    assert (job.state, hook_calls(job)) == (CANCELLED, {})


@pytest.mark.parametrize("event", ["PRE", "POST", "BEFORE", "AFTER"])
async def test_only_error_hooks_are_called_on_cancel(services: Services, project: str, event: str) -> None:  # noqa: F811
    stage = "push" if event in {"BEFORE", "AFTER"} else ""
    hook = hook_pb2.Hook(event=f"EVENT_{event}", stage=stage, command="true", on_cancel=True, project_id=project)
    error = await refusal(services.hooks.CreateHook(hook_pb2.CreateHookRequest(hook=hook)), Invalid)
    assert [field for field, _ in error.violations] == ["hook.on_cancel"]
