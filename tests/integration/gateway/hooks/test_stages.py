"""Hooks before and after the stages of a job: when they are called, what they can stop, and for which jobs."""

import json

import pytest
from boatyard.gateway.v1 import catalog_pb2, hook_pb2, job_pb2
from google.protobuf.duration_pb2 import Duration

from tests.kit.hooks import BROKEN, DONE, FAIL, Hooks, hook_calls, killed_in_mid_call
from tests.kit.receiver import Reply, receiver
from tests.kit.repos import Repo
from tests.kit.services import Services

pytestmark = pytest.mark.slow

SUCCEEDED, FAILED, CANCELLED = (
    job_pb2.Job.State.Value(f"STATE_{name}") for name in ("SUCCEEDED", "FAILED", "CANCELLED")
)
VETO = json.dumps({"allow": False, "reason": "not on a Friday"}).encode()
STAGES = ("base", "workspace", "branch", "start", "agent", "take", "diff", "verify", "push")


async def test_hooks_come_around_every_stage_in_its_order(services: Services, register: Hooks, remote: Repo) -> None:
    hooks = {}
    async with receiver() as server:
        for stage in STAGES:
            for event in ("BEFORE", "AFTER"):
                if (event, stage) not in {("BEFORE", "agent"), ("AFTER", "start")}:
                    hook = await register.web(event, server.url, stage=stage)
                    hooks[f"{event.lower()}-{stage}-hook-1"] = hook.hook_id
        job = await services.run("touch new", **await register.spec(remote), policy={"verify_command": "true"})
    assert job.state == SUCCEEDED, job.message
    told = [(received.json["type"], received.json["data"]["stage"]) for received in server.received]
    wanted = [(f"job.{event}", stage) for stage in STAGES for event in ("before", "after")]
    assert told == [each for each in wanted if each not in {("job.before", "agent"), ("job.after", "start")}]
    names = [stage.name for stage in job.timeline]
    assert {stage.name: stage.hook_id for stage in job.timeline if stage.hook_id} == hooks
    for stage in STAGES:
        around = (
            [f"before-{stage}-hook-1"] * (stage != "agent") + [stage] + [f"after-{stage}-hook-1"] * (stage != "start")
        )
        assert names[names.index(around[0]) :][: len(around)] == around
    seen = {stage: received.json["data"]["job"] for (_, stage), received in zip(told, server.received, strict=True)}
    assert seen["take"]["output"]["commitId"] == job.output.commit_id
    assert seen["push"]["output"]["pushed"] is True


async def test_a_veto_before_the_push_keeps_the_result_and_publishes_nothing(
    services: Services, register: Hooks, remote: Repo
) -> None:
    async with receiver(Reply(200, VETO)) as server, receiver() as told:
        guard = await register.web("BEFORE", server.url, stage="push")
        await register.web("AFTER", told.url, stage="push")
        await register.web("ERROR", told.url)
        job = await services.run("touch new", **await register.spec(remote))
    assert (job.state, job.reason, job.message) == (FAILED, "VETOED", "not on a Friday")
    (failed,) = [stage for stage in job.timeline if stage.state == job_pb2.StageRecord.STATE_FAILED]
    assert failed.hook_id == guard.hook_id
    assert job.output.commit_id
    assert [change.path for change in job.output.files_changed] == ["new"]
    assert job.output.snapshot_id, "it can be gone on from"
    assert not job.output.pushed
    assert remote.git("branch", "--list", f"boatyard/{job.job_id}") == ""
    assert "push" not in [stage.name for stage in job.timeline]
    assert [received.json["type"] for received in told.received] == ["job.error"]


async def test_commands_work_in_the_workspace_while_no_agent_is_in_it(
    services: Services, register: Hooks, remote: Repo
) -> None:
    await register("BEFORE", stage="start", command='echo "$BOATYARD_HOOK_EVENT $BOATYARD_HOOK_STAGE" > prepared')
    await register("AFTER", stage="agent", command="tr a-z A-Z < made > formatted; rm made")
    await register("BEFORE", stage="push", command="test -e formatted && touch 'too late'")
    job = await services.run("cat prepared > made", **await register.spec(remote))
    assert job.state == SUCCEEDED, job.message
    branch = f"boatyard/{job.job_id}"
    assert {"prepared", "formatted"} <= set(remote.files(branch))
    assert {"made", "too late"}.isdisjoint(remote.files(branch))
    assert [state for state, _ in hook_calls(job).values()] == [DONE] * 3


async def test_a_hook_after_the_agent_hides_neither_its_failure_nor_that_of_the_check(
    services: Services, register: Hooks, remote: Repo
) -> None:
    for stage in ("agent", "verify"):
        await register("AFTER", stage=stage, command="echo broken; exit 9", failure_policy=FAIL)
    spec = await register.spec(remote)
    failed = await services.run("exit 3", **spec)
    assert (failed.reason, hook_calls(failed)["after-agent-hook-1"][0]) == ("AGENT_FAILED", BROKEN)
    good = await services.run("touch new", **spec)
    assert (good.reason, good.output.commit_id) == ("HOOK_FAILED", ""), good.message
    assert good.output.snapshot_id, "what the agent did is kept all the same"


async def test_a_cancel_before_the_push_ends_the_job_and_after_it_nothing(
    services: Services, register: Hooks, remote: Repo
) -> None:
    spec = await register.spec(remote)
    for event, state in (("BEFORE", CANCELLED), ("AFTER", SUCCEEDED)):
        async with receiver(Reply(is_silent=True)) as server:
            hook = await register.web(event, server.url, stage="push", timeout=Duration(seconds=60))
            job = await services.submit("touch new", **spec)
            await server.until(1)
            await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
            ended = await services.ended(job.job_id, timeout=20)
            assert (ended.state, ended.output.pushed) == (state, event == "AFTER")
        await services.hooks.DeleteHook(hook_pb2.DeleteHookRequest(hook_id=hook.hook_id))


async def test_a_killed_gateway_repeats_the_call_under_way_and_pushes_once(
    services: Services, register: Hooks, remote: Repo
) -> None:
    async with receiver(Reply(200), Reply(is_silent=True), Reply(200)) as server:
        for event in ("BEFORE", "AFTER"):
            await register.web(event, server.url, stage="push", timeout=Duration(seconds=60))
        job = await services.submit("touch new", **await register.spec(remote))
        await server.until(2)
        await killed_in_mid_call(services)
        ended = await services.ended(job.job_id)
    assert ended.state == SUCCEEDED
    names = ("before", "after", "after")
    assert [received.message_id for received in server.received] == [
        f"{job.execution_ids[0]}-{name}-push-hook-1" for name in names
    ]


async def test_a_hook_is_called_for_the_jobs_that_all_of_its_scope_fits(services: Services, register: Hooks) -> None:
    template = catalog_pb2.Template(project_id=register.project, display_name="Reviewer")
    made = (await services.catalog.CreateTemplate(catalog_pb2.CreateTemplateRequest(template=template))).template
    mine = {"template_ids": [made.template_id]}
    other = await Hooks.of_new_project(services)
    everywhere = await register("PRE", command="echo everywhere", all_projects=True, order=1)
    await register("PRE", command="echo template", **mine, order=2)
    await register("PRE", command="echo kind", kinds=["task", "else"], order=3)
    await register("PRE", command="echo no such kind", **mine, kinds=["else"], order=4)
    await register("PRE", command="echo disabled", disabled=True, order=5)
    await register("PRE", command="echo every template", all_projects=True, **mine, order=6)

    async def called(**spec) -> list[str]:
        job = await services.run("true", **spec)
        return [message.rpartition(": ")[2] for _, message in hook_calls(job).values()]

    try:
        with_template = await called(project_id=register.project, template_id=made.template_id)
        assert with_template == ["everywhere", "template", "kind", "every template"]
        assert await called(project_id=register.project) == ["everywhere", "kind"]
        assert await called(project_id=other.project) == ["everywhere"]
    finally:
        await services.hooks.DeleteHook(hook_pb2.DeleteHookRequest(hook_id=everywhere.hook_id))
