"""A machine without room is that machine's: it refuses a job until an agent has begun, and is waited for after that."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.db.engine import sqlite_url
from services.common.rpc.channel import open_channel
from services.lifecycle.ledger import Beat, Stage
from services.lifecycle.model.node_work import Base, EndedRun, Layout, Run
from services.lifecycle.model.outcome import Failure, Outcome, RetentionPeriods
from services.lifecycle.model.states import ExecutionState, JobState, StageState
from services.lifecycle.model.value import Recorded, dump
from services.lifecycle.nodes import Nodes
from services.lifecycle.retries import is_refusal, is_to_retry, retry_after, unless_refused
from services.lifecycle.run import JobRun
from services.lifecycle.stages.artifacts import take_artifacts
from services.lifecycle.stages.cleanup import keep_state
from services.lifecycle.webhooks import Webhooks
from tests.kit.ledger import books, claimed

NO_ROOM = Failure("DISK_FULL", "no room")
BASE = Base("c0ffee", (), ())
RUNNING = Run("exec-1", ExecutionState.RUNNING)
NEVER_BEGAN = EndedRun(Run("exec-1", ExecutionState.FAILED, reason="DISK_FULL", message="no room"), b"")
FAILED = EndedRun(Run("exec-1", ExecutionState.FAILED, reason="AGENT_FAILED"), b"")


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[JobRun]:
    """A job that was claimed for its last attempt; its nodes are never called."""
    async with books(sqlite_url(tmp_path / "gateway.db")) as book, AsyncExitStack() as stack:
        await book.admit()
        cell = await book.cell("cell")
        channels = [await stack.enter_async_context(open_channel("127.0.0.1:1")) for _ in range(3)]
        job = JobRun(await claimed(cell), cell, Nodes(*channels), Webhooks(), RetentionPeriods())
        await job.load()
        job.lease = replace(job.lease, attempt=3, last_attempt=3)
        yield job


def stages(**results: Recorded | None) -> dict[str, Stage]:
    """Return stages with these results: a failure has failed, and what has none still runs."""
    return {
        name.replace("_", "-"): Stage(name, StageState.RUNNING)
        if result is None
        else Stage(name, StageState.FAILED if isinstance(result, Failure) else StageState.DONE, dump(result))
        for name, result in results.items()
    }


BEFORE = {
    "the base": stages(base=NO_ROOM),
    "the workspace": stages(base=BASE, workspace=NO_ROOM),
    "a hook": stages(pre_hook_1=NO_ROOM),
    "its start": stages(base=BASE, workspace=Layout(), start=NO_ROOM),
    "its sandbox": stages(base=BASE, workspace=Layout(), start=RUNNING, agent=NEVER_BEGAN),
}
AFTER = {
    "it works": (1, stages(start=RUNNING, agent=None)),
    "it has worked": (1, stages(start=RUNNING, agent=FAILED, take=NO_ROOM)),
    "its check": (1, stages(start=RUNNING, agent=FAILED, verify=NO_ROOM)),
    "a second round": (2, stages(start=RUNNING, agent=FAILED, start_2=NO_ROOM)),
}


@pytest.mark.parametrize("where", BEFORE)
async def test_before_the_agent_a_job_loses_no_attempt_and_its_machine_keeps_nothing(job: JobRun, where: str) -> None:
    job.stages = BEFORE[where]
    assert not job.has_agent_begun
    assert is_refusal(job, NO_ROOM)
    assert is_to_retry(job, Outcome(JobState.FAILED, NO_ROOM)), "it was the last attempt"
    assert retry_after(job, NO_ROOM).is_refusal
    before = dict(job.stages)
    await take_artifacts(job)
    await keep_state(job)
    assert job.stages == before, "there is nothing to keep, and no room for it"


@pytest.mark.parametrize("where", BEFORE)
async def test_a_job_that_is_cancelled_while_its_machine_refuses_it_is_cancelled(job: JobRun, where: str) -> None:
    job.stages = BEFORE[where]
    outcome = Outcome(JobState.FAILED, NO_ROOM)
    assert unless_refused(job, outcome) == outcome
    job.apply_beat(Beat(frozenset(), frozenset({job.lease.job_id})), 0.0)
    assert unless_refused(job, outcome) == Outcome(JobState.CANCELLED)
    job.stages |= stages(error=None)
    assert unless_refused(job, outcome) == outcome, "that is what its error hooks were told"


@pytest.mark.parametrize("when", AFTER)
async def test_after_the_agent_has_begun_its_machine_is_waited_for(job: JobRun, when: str) -> None:
    round_, job.stages = AFTER[when]
    job.round = round_
    assert job.has_agent_begun
    assert not is_refusal(job, NO_ROOM)
