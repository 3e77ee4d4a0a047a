"""Jobs that ended long ago are removed with everything that belongs to them, and nothing else is."""

import pytest
from sqlalchemy import func, select, type_coerce

from services.common.db.columns import Moment
from services.common.errors import NotFound
from services.gateway.jobs.retention import remove_expired
from services.gateway.jobs.retries import Retries
from services.gateway.schema.clock import now
from services.gateway.schema.metadata import metadata
from services.gateway.schema.totals import totals
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import JobState, Purpose
from tests.kit.ledger import Books, claimed, set_job

DAY = 86_400_000_000
FAILURE = Failure("AGENT_FAILED", "it broke")


async def age(book: Books, job_id: str, days: float) -> None:
    """Set a job's end to so long ago."""
    await set_job(book, job_id, end_time=type_coerce(now() - round(days * DAY), Moment))


async def rows(book: Books) -> int:
    """Count the rows of every table but that of totals, which keeps what was counted."""
    async with book.engine.begin() as connection:
        return sum(
            [
                (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in metadata.sorted_tables
                if table is not totals
            ]
        )


async def test_jobs_that_ended_long_ago_are_forgotten_with_all_that_is_theirs(book: Books) -> None:
    cell = await book.cell("cell")
    before = await rows(book)
    await book.admit(labels={"team": "harbour"})
    lease = await claimed(cell)
    await cell.begin_stage(lease, "base")
    await cell.note(lease, ExecutionNote(f"{lease.execution_id}-verify", Purpose.VERIFY, "ws-check"))
    await cell.retry(lease, Retry(FAILURE, seconds=0))
    await cell.finish(await claimed(cell), Outcome(JobState.FAILED, FAILURE))
    assert await rows(book) > before + 5
    await age(book, lease.job_id, 8.9)
    assert await remove_expired(book.engine, 9) == 0
    await age(book, lease.job_id, 9.1)
    assert await remove_expired(book.engine, 9) == 1
    assert await rows(book) == before
    with pytest.raises(NotFound):
        await book.store.job(lease.job_id)


async def test_what_lives_is_not_forgotten_however_old_it_is(book: Books) -> None:
    cell = await book.cell("cell")
    await book.admit("runs")
    lease = await claimed(cell)
    await book.admit("waits")
    await book.admit("is tried again")
    again = await claimed(cell)
    assert again.spec.prompt == "waits"
    await cell.finish(again, Outcome(JobState.FAILED, FAILURE))
    await age(book, again.job_id, 1000)
    await Retries(book.engine, book.notifier).retry(again.job_id, from_snapshot=False, key=None)
    await age(book, lease.job_id, 1000)  # this cannot happen, and would not count
    assert await remove_expired(book.engine, 1) == 0
    assert (await cell.beat([lease])).held == {lease.job_id}


async def test_many_are_forgotten_a_few_at_a_time(book: Books) -> None:
    for _ in range(3):
        job_id = (await book.admit()).spec.job_id
        await book.store.cancel_job(job_id)
        await age(book, job_id, 2)
    assert [await remove_expired(book.engine, 1, at_once=2) for _ in range(3)] == [2, 1, 0]
