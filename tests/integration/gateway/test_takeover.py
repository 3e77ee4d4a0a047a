"""A cell is lost in the midst of a job's end, and another takes over: what others see of the job is done once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from services.agent.settings import AgentSettings, CommandEngine
from services.gateway.catalog.store import REPOSITORIES, CatalogStore
from services.gateway.hooks.store import HookStore
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.values.catalog import Repository
from services.gateway.values.hooks import Hook, HookEvent
from services.gateway.values.jobs import JobView
from services.lifecycle.driver import Driver
from services.lifecycle.ledger import Lease, StageEnd
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState, StageState
from services.lifecycle.nodes import Nodes
from tests.kit.ledger import Books
from tests.kit.repos import Repo

# What a model writes is never the same twice.
FICKLE = "echo started; od -An -N8 -tx1 /dev/urandom > fickle.txt"


class Dying:
    """A ledger whose process is lost as it is about to record the end of a stage, or of the job."""

    def __init__(self, ledger: SqlLedger, stage: str) -> None:
        self._ledger = ledger
        self._stage = stage
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def begin_stage(self, lease: Lease, name: str, ended: Sequence[StageEnd]) -> None:
        if self._stage in {each.stage.name for each in ended}:
            await self._die()
        await self._ledger.begin_stage(lease, name, ended)

    async def finish(self, *_: Any) -> None:
        await self._die()

    async def _die(self) -> None:
        self.died.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def driving(ledger: Any, nodes: Nodes) -> AsyncIterator[None]:
    task = asyncio.create_task(Driver(ledger, nodes, capacity=1).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def lost_and_taken_over(book: Books, nodes: Nodes, remote: Repo, stage: str) -> tuple[JobView, list[str]]:
    """Lose a cell before it records a stage's end, and have another end the job; return its branch's commits too."""
    remote.git("config", "core.logAllRefUpdates", "always")
    added = Repository(
        repository_id="repo-1", project_id="default", url=str(remote.path), create_time=datetime.now(UTC)
    )
    await CatalogStore(book.engine).create(REPOSITORIES, added)
    admitted = await book.admit(agent=AgentSettings(engine=CommandEngine(line=FICKLE)), repository_id="repo-1")
    job = await ended_elsewhere(book, nodes, admitted.spec.job_id, stage)
    log = (remote.path / "logs" / "refs" / "heads" / "boatyard" / job.spec.job_id).read_text()
    return job, [line.split(" ")[1] for line in log.splitlines()]


async def ended_elsewhere(book: Books, nodes: Nodes, job_id: str, stage: str) -> JobView:
    """Lose a job's cell before it records a stage's end, and have another end the job."""
    dying = Dying(await book.cell("one"), stage)
    async with asyncio.timeout(110):
        async with driving(dying, nodes):
            await dying.died.wait()
        async with book.engine.begin() as connection:
            await connection.execute(update(jobs).values(lease_until=now() - 1))
        async with driving(await book.cell("two"), nodes):
            while not (job := await book.store.job(job_id)).state.is_final:
                await asyncio.sleep(0.02)
    return job


async def test_a_job_that_has_pushed_is_not_begun_anew(book: Books, nodes: Nodes, remote: Repo) -> None:
    job, commits = await lost_and_taken_over(book, nodes, remote, "finish")

    assert (job.state, job.cell_id) == (JobState.SUCCEEDED, "two")
    (execution,) = job.executions
    assert commits == [execution.output.commit_id]


@pytest.mark.slow
async def test_a_push_of_which_nobody_knows_whether_it_was_done(book: Books, nodes: Nodes, remote: Repo) -> None:
    job, commits = await lost_and_taken_over(book, nodes, remote, "push")

    assert job.state is JobState.SUCCEEDED, job
    first, second = job.executions
    assert commits == [first.output.commit_id, second.output.commit_id]
    assert second.output.pushed
    assert not first.output.pushed


async def test_hooks_are_told_of_a_job_whose_last_attempt_was_lost(book: Books, nodes: Nodes) -> None:
    hook = Hook(
        hook_id="hook-1",
        project_id="default",
        event=HookEvent.ERROR,
        command="echo told",
        create_time=datetime.now(UTC),
    )
    await HookStore(book.engine).create(hook, None)
    admitted = await book.admit(agent=AgentSettings(engine=CommandEngine(line="true")), policy=Policy(max_attempts=1))
    job = await ended_elsewhere(book, nodes, admitted.spec.job_id, "agent")

    assert (job.state, job.reason, job.cell_id) == (JobState.FAILED, "NODE_LOST", "two")
    assert [(stage.name, stage.state) for stage in job.timeline][-1] == ("error-hook-1", StageState.DONE)
    assert len(job.executions) == 1
