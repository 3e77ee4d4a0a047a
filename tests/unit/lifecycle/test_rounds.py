"""How an agent's work goes on when a person asks for more: what is a round's own, and what it is told."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.agent.settings import AgentSettings, CommandEngine, PromptDelivery
from services.common.db.paging import Page
from services.common.rpc.channel import open_channel
from services.gateway.values.checkpoints import CheckpointDecision, CheckpointFilter, Decider
from services.lifecycle.failures import JobFailed, Parked
from services.lifecycle.ledger import Stage
from services.lifecycle.model.checkpoint import CheckpointState, Decision, Origin
from services.lifecycle.model.job_context import HookResult
from services.lifecycle.model.node_work import Layout, Run
from services.lifecycle.model.outcome import Outcome, RetentionPeriods
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import ExecutionState, JobState, StageState
from services.lifecycle.model.value import dump
from services.lifecycle.nodes import Nodes
from services.lifecycle.run import JobRun
from services.lifecycle.stages.agent import is_agent_gone
from services.lifecycle.stages.checkpoints import answer_agent, approval, ask, first_task
from services.lifecycle.webhooks import Webhooks
from tests.kit.ledger import Books, claimed


@asynccontextmanager
async def carried(book: Books, **fields: Any) -> AsyncIterator[JobRun]:
    """Claim a job, as it is now; its nodes are never called."""
    if fields:
        await book.admit(**fields)
    cell = await book.cell("cell")
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel("127.0.0.1:1")) for _ in range(3)]
        job = JobRun(await claimed(cell), cell, Nodes(*channels), Webhooks(), RetentionPeriods())
        await job.load()
        yield job


def done(name: str, result: Any = None) -> Stage:
    return Stage(name, StageState.DONE, "{}" if result is None else dump(result))


async def test_a_round_has_steps_and_an_agent_of_its_own(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        first = job.execution
        assert (job.in_round("take"), job.agent_id) == ("take", job.execution_id)
        job.stages = {"start": done("start", Run(job.agent_id, ExecutionState.SUCCEEDED))}
        assert not is_agent_gone(job)
        job.stages["agent"] = done("agent")
        assert is_agent_gone(job)
        job.execution = replace(first, output=replace(first.output, base_commit_id="c0ffee", summary="done"))
        job.begin_round()
        assert (job.in_round("take"), job.agent_id) == ("take-2", f"{job.execution_id}-round-2")
        assert (job.execution.output.base_commit_id, job.execution.output.summary) == ("c0ffee", "")
        job.stages["start-2"] = Stage("start-2", StageState.RUNNING)
        assert not is_agent_gone(job), "the second may run"


async def test_what_was_recorded_of_the_last_round_is_kept_at_a_replay(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        run = Run(job.execution_id, ExecutionState.SUCCEEDED)
        job.stages = {name: done(name, run) for name in ("start", "start-2", "start-3")}
        job.execution = replace(job.execution, execution_id=f"{job.execution_id}-round-3", workspace_id="ws-1")
        loaded = job.execution
        job.begin_round()
        job.begin_round()
        assert job.execution is loaded
        job.begin_round()
        assert job.execution.execution_id == f"{job.execution_id}-round-4"


async def test_a_question_is_asked_once_and_its_answer_replayed(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        with pytest.raises(Parked):
            await ask(job, "hook", Origin.HOOK, "Is it wise?")
    (asked,) = (await book.store.job(job.lease.job_id)).checkpoints
    assert (asked.question, asked.origin, asked.takes_changes) == ("Is it wise?", Origin.HOOK, False)
    await answered(book, CheckpointState.APPROVED)
    async with carried(book) as job:
        decision = await ask(job, "hook", Origin.HOOK, "Is it wise?")
        assert decision == Decision(CheckpointState.APPROVED, "so be it", "")
        assert await ask(job, "hook", Origin.HOOK, "Is it wise?") == decision
        await job.finish(Outcome(JobState.SUCCEEDED))
    (stage,) = [stage for stage in (await book.store.job(job.lease.job_id)).timeline if stage.name == "approval-hook"]
    assert (stage.state, stage.message) == (StageState.DONE, "approved: so be it")


async def test_a_refusal_fails_the_job_at_every_replay(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        with pytest.raises(Parked):
            await ask(job, "hook", Origin.HOOK, "Is it wise?")
    await answered(book, CheckpointState.REJECTED)
    async with carried(book) as job:
        for _ in range(2):
            with pytest.raises(JobFailed) as failed:
                await ask(job, "hook", Origin.HOOK, "Is it wise?")
            assert (failed.value.failure.reason, failed.value.failure.message) == ("REJECTED", "so be it")


async def test_nobody_is_asked_where_the_policy_does_not_say_so(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        assert await approval(job, "start") == ""
    assert (await book.store.job(job.lease.job_id)).state is JobState.RUNNING


@pytest.mark.parametrize("bound", [0, 1, 2])
async def test_changes_can_be_asked_for_as_often_as_the_policy_says(book: Books, bound: int) -> None:
    policy = Policy(checkpoints=Checkpoints(("verify",)), max_extra_rounds=bound)
    await book.admit(prompt="Do it.", policy=policy)
    for round_ in range(1, bound + 2):
        async with carried(book) as job:
            for _ in range(1, round_):
                assert "so be it" in await approval(job, "verify")
                job.begin_round()
            with pytest.raises(Parked):
                await approval(job, "verify")
        asked = (await book.store.job(job.lease.job_id)).checkpoints[-1]
        assert (asked.round, asked.takes_changes) == (round_, round_ <= bound)
        if round_ <= bound:
            await answered(book, CheckpointState.CHANGES_REQUESTED)


@pytest.mark.parametrize("bound", [0, 1, 2])
async def test_an_agent_is_answered_as_often_as_the_policy_says(book: Books, bound: int) -> None:
    policy = Policy(agent_may_ask=True, max_extra_rounds=bound)
    async with carried(book, prompt="Do it.", policy=policy) as job:
        for round_ in range(1, bound + 2):
            suffix = "" if round_ == 1 else f"-{round_}"
            asked, answer = f"ask{suffix}", f"approval-agent{suffix}"
            job.stages[asked] = done(asked, HookResult("And now?"))
            job.stages[answer] = done(answer, Decision(CheckpointState.APPROVED, "so be it", ""))
            if round_ <= bound:
                assert "so be it" in await answer_agent(job, Layout(), None)
                job.begin_round()
        with pytest.raises(JobFailed) as failed:
            await answer_agent(job, Layout(), None)
    assert failed.value.failure.reason == "ROUNDS_EXCEEDED"


@pytest.mark.parametrize(("size", "told"), [(10, True), (127 << 10, True), ((128 << 10) - 100, False)])
async def test_an_agent_is_told_that_it_may_ask_where_that_fits(book: Books, size: int, told: bool) -> None:
    agent = AgentSettings(engine=CommandEngine(line="true", prompt_delivery=PromptDelivery.ARGUMENT))
    async with carried(book, prompt="x" * size, agent=agent, policy=Policy(agent_may_ask=True)) as job:
        assert (".boatyard/ask" in first_task(job)) is told
        assert first_task(job).startswith(job.spec.task)
        assert len(first_task(job).encode()) < 128 << 10


async def answered(book: Books, state: CheckpointState) -> None:
    """Answer what the only job asks."""
    pending = CheckpointFilter(states=frozenset({CheckpointState.PENDING}))
    (asked,) = await book.checkpoints.page(pending, Page())
    await book.checkpoints.decide(
        asked.checkpoint_id, CheckpointDecision(state=state, comment="so be it", decider=Decider())
    )
