"""How a job is cut short: at once, with nothing of it going on, and never where it must go through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.common.db.engine import sqlite_url
from services.common.rpc.channel import open_channel
from services.lifecycle.failures import JobCancelled
from services.lifecycle.ledger import Beat
from services.lifecycle.model.outcome import RetentionPeriods
from services.lifecycle.nodes import Nodes
from services.lifecycle.run import JobRun
from services.lifecycle.webhooks import Webhooks
from tests.kit.ledger import books, claimed


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[JobRun]:
    """A job that was claimed; its nodes are never called."""
    async with books(sqlite_url(tmp_path / "gateway.db")) as book, AsyncExitStack() as stack:
        await book.admit()
        cell = await book.cell("cell")
        channels = [await stack.enter_async_context(open_channel("127.0.0.1:1")) for _ in range(3)]
        yield JobRun(await claimed(cell), cell, Nodes(*channels), Webhooks(), RetentionPeriods())


def cancel(job: JobRun) -> None:
    ours = frozenset({job.lease.job_id})
    job.apply_beat(Beat(held=ours, cancel_requested=ours), sent=0)


class Work:
    """Something that takes for ever, and some time to put away."""

    begun = put_away = False

    async def go_on(self) -> None:
        self.begun = True
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.put_away = True


async def until_begun(work: Work) -> None:
    while not work.begun:
        await asyncio.sleep(0)


async def test_what_is_interruptible_ends_when_the_job_is_to_end(job: JobRun) -> None:
    work = Work()
    waiting = asyncio.create_task(job.interruptible(work.go_on()))
    await until_begun(work)
    cancel(job)
    with pytest.raises(JobCancelled):
        await waiting
    assert work.put_away, "and only then"


async def test_what_is_done_counts(job: JobRun) -> None:
    async def answer() -> int:
        return 42

    assert await job.interruptible(answer()) == 42


async def test_an_uninterrupted_block_goes_through(job: JobRun) -> None:
    async def answer() -> int:
        await asyncio.sleep(0.01)
        return 42

    cancel(job)
    with job.uninterrupted():
        assert await job.interruptible(answer()) == 42
        await job.pause(0.01)
        job.check_cancelled()
    with pytest.raises(JobCancelled):
        job.check_cancelled()
    with pytest.raises(JobCancelled):
        await job.pause(60)


async def test_what_keeps_the_work_has_a_grace_and_no_more_even_where_nothing_else_is_cut_short(job: JobRun) -> None:
    async def answer() -> int:
        await asyncio.sleep(0.05)
        return 42

    cancel(job)
    work = Work()
    with job.uninterrupted():
        assert await job.unless_cancelled(answer(), grace_seconds=30) == 42
        with pytest.raises(JobCancelled):
            await job.unless_cancelled(work.go_on(), grace_seconds=0.05)
    assert work.put_away


async def test_a_driver_that_lets_go_is_no_cancel(job: JobRun) -> None:
    work = Work()
    waiting = asyncio.create_task(job.interruptible(work.go_on()))
    await until_begun(work)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.put_away
