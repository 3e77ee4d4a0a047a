"""What a job costs its database: transactions and statements are counted, as they are what its time goes with."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from sqlalchemy import event

from bench.kit.nodes import NoOpAgents, idle_nodes
from services.gateway.jobs.shared_reads import SharedReads
from services.gateway.jobs.watching import watch_job
from services.gateway.values.jobs import JobView
from services.lifecycle.driver import Driver
from services.lifecycle.life import run_job
from services.lifecycle.model.outcome import Outcome, RetentionPeriods
from services.lifecycle.model.states import JobState
from services.lifecycle.run import JobRun
from services.lifecycle.webhooks import Webhooks
from tests.kit.ledger import Books, claimed

TRANSACTIONS = 11
"""Admission, claim, what is recorded, the begin of each of seven stages, the end."""
STATEMENTS = 52


@contextmanager
def counted(book: Books) -> Iterator[Counter[str]]:
    """Count what is executed."""
    counts: Counter[str] = Counter()

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        counts["statements"] += not statement.startswith("BEGIN")

    def committed(_connection: Any) -> None:
        counts["transactions"] += 1

    engine = book.engine.sync_engine
    event.listen(engine, "before_cursor_execute", executed)
    event.listen(engine, "commit", committed)
    try:
        yield counts
    finally:
        event.remove(engine, "before_cursor_execute", executed)
        event.remove(engine, "commit", committed)


async def test_a_job_is_few_transactions_and_statements(book: Books) -> None:
    cell = await book.cell("cell")
    async with idle_nodes(NoOpAgents()) as nodes:  # type: ignore[abstract] # a job calls no more
        with counted(book) as counts:
            await book.admit("Do nothing.", labels={"team": "a"})
            job = JobRun(await claimed(cell), cell, nodes, Webhooks(), RetentionPeriods())
            outcome = await run_job(job)
    assert outcome == Outcome(JobState.SUCCEEDED)
    assert counts["transactions"] <= TRANSACTIONS
    assert counts["statements"] <= STATEMENTS
    assert len((await book.store.job(job.lease.job_id)).timeline) == 8


async def test_an_idle_driver_is_woken_for_a_job_and_for_nothing_else(book: Books) -> None:
    """It claims the job and knows that no other waits; it renews no lease, as no job that it has is to end."""
    cell = await book.cell("cell")
    async with idle_nodes(NoOpAgents()) as nodes:  # type: ignore[abstract] # a job calls no more
        driver = Driver(cell, nodes, capacity=4, poll_seconds=3600)
        book.notifier.call_on_work(driver.wake)
        with counted(book) as counts:
            driving = asyncio.create_task(driver.run())
            async with asyncio.timeout(30):
                while counts["transactions"] < 2:  # it looks once for work, and renews what it has
                    await asyncio.sleep(0.01)
                counts.clear()
                for number in (1, 2):  # with the second we see what the first left behind
                    job_id = (await book.admit("Do nothing.")).spec.job_id
                    with book.notifier.subscribe(job_id) as subscription:
                        while counts["transactions"] < number * TRANSACTIONS or driver.running_jobs:
                            await subscription.wait(0.1)
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
    assert counts["transactions"] == 2 * TRANSACTIONS
    assert (await book.store.job(job_id)).state is JobState.SUCCEEDED


async def test_a_watcher_is_one_transaction_a_change(book: Books) -> None:
    view, cell = await book.admit("Do nothing."), await book.cell("cell")
    job_id, seen = view.spec.job_id, asyncio.Queue[JobView]()

    async def watch() -> None:
        async with aclosing(watch_job(SharedReads(book.store), book.notifier, job_id)) as views:
            async for each in views:
                if each is not None:
                    await seen.put(each)

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(30):
        assert (await seen.get()).state is JobState.PENDING
        with counted(book) as counts:
            lease = await claimed(cell)
            assert (await seen.get()).state is JobState.RUNNING
            await cell.finish(lease, Outcome(JobState.CANCELLED))
            assert (await seen.get()).state is JobState.CANCELLED
        await watching
    assert counts["transactions"] == 4


async def test_what_has_ended_is_recorded_before_anything_else_begins(book: Books) -> None:
    """As each stage begins, all before it are recorded as done: a driver that is lost then repeats that stage alone."""
    await book.admit("Do nothing.")
    cell = await book.cell("cell")
    lease, seen = await claimed(cell), []

    class Looking:
        def __getattr__(self, name: str) -> Any:
            return getattr(cell, name)

        async def begin_stage(self, *written: Any) -> None:
            await cell.begin_stage(*written)
            seen.append([(stage.name, str(stage.state)) for stage in (await book.store.job(lease.job_id)).timeline])

    async with idle_nodes(NoOpAgents()) as nodes:  # type: ignore[abstract] # a job calls no more
        await run_job(JobRun(lease, Looking(), nodes, Webhooks(), RetentionPeriods()))  # type: ignore[arg-type]
    names = ["hooks", "base", "workspace", "start", "agent", "take", "diff", "cleanup"]
    assert seen == [
        [*((name, "DONE") for name in names[:number]), (names[number], "RUNNING")] for number in range(1, len(names))
    ]
