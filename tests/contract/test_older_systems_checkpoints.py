"""Watches of checkpoints that wait, and how many of everything there are, beside the pages of lists."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.checkpoints.watching import watch_open
from services.gateway.values.checkpoints import Checkpoint, CheckpointDecision, CheckpointFilter, Decider
from services.gateway.values.jobs import ExecutionFilter, JobFilter
from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, claimed, expire_checkpoints, question

PENDING = CheckpointFilter(states=frozenset({CheckpointState.PENDING}))
ADA = Decider(name="ada", peer="", via="")
Watch = AsyncGenerator[Checkpoint | None, None]


async def asked(book: Books, prompt: str = "Do it.") -> Checkpoint:
    """Let a job ask a person."""
    cell = await book.cell("cell")
    await book.admit(prompt)
    lease = await claimed(cell)
    await cell.park(lease, question(lease))
    book.notifier.notify(lease.job_id)
    (checkpoint,) = (await book.store.job(lease.job_id)).checkpoints
    return checkpoint


@asynccontextmanager
async def watching(book: Books, filters: CheckpointFilter = PENDING) -> AsyncIterator[Watch]:
    async with asyncio.timeout(20), aclosing(watch_open(book.checkpoints, book.notifier, filters)) as watch:
        yield watch


async def following(watch: Watch) -> tuple[str, CheckpointState]:
    """Return the next checkpoint that a watch tells of, and its state."""
    async for view in watch:
        if view is not None:
            return view.checkpoint_id, view.state
    raise AssertionError("a watch has no end")


async def test_what_waits_comes_first_then_the_new_and_each_again_when_it_is_decided(book: Books) -> None:
    first, second = await asked(book), await asked(book)
    async with watching(book) as watch:
        assert [await anext(watch) for _ in range(3)] == [first, second, None], "None: that was all"
        third = await asked(book)
        assert await following(watch) == (third.checkpoint_id, CheckpointState.PENDING)
        decision = CheckpointDecision(state=CheckpointState.APPROVED, comment="", decider=ADA)
        await CheckpointStore(book.engine, book.notifier).decide(first.checkpoint_id, decision)
        assert await following(watch) == (first.checkpoint_id, CheckpointState.APPROVED)
        await expire_checkpoints(book)
        told = {await following(watch), await following(watch)}
        assert told == {(each.checkpoint_id, CheckpointState.EXPIRED) for each in (second, third)}
    async with watching(book) as watch:
        assert await anext(watch) is None, "nothing waits any more"


@pytest.mark.parametrize("field", ["job_id", "project_id"])
async def test_a_watch_tells_only_of_what_matches(book: Books, field: str) -> None:
    checkpoint = await asked(book)
    await asked(book)
    wanted = {"job_id": checkpoint.job_id, "project_id": "elsewhere"}[field]
    filters = CheckpointFilter(states=PENDING.states, **{field: wanted})
    async with watching(book, filters) as watch:
        first = await anext(watch)
        assert first == (checkpoint if field == "job_id" else None)


async def test_more_than_fit_into_one_look_all_come(book: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.checkpoints.watching._AT_ONCE", 2)
    made = [await asked(book) for _ in range(5)]
    async with watching(book) as watch:
        assert [await anext(watch) for _ in range(6)] == [*made, None]


async def test_how_many_there_are_is_counted_by_the_same_filter(book: Books) -> None:
    for _ in range(3):
        await asked(book)
    await book.admit()
    assert await book.store.number_of_jobs(JobFilter()) == 4
    assert await book.store.number_of_jobs(JobFilter(states=frozenset({JobState.PENDING}))) == 1
    assert await book.store.number_of_jobs(JobFilter(visible=frozenset())) == 0
    assert await book.store.number_of_executions(ExecutionFilter()) == 4
    assert await book.store.number_of_executions(ExecutionFilter(project_id="elsewhere")) == 0
    assert await book.checkpoints.number_of(PENDING) == 3
    assert await book.checkpoints.number_of(CheckpointFilter(job_id="job-none")) == 0
