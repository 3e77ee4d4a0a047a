"""Jobs whose provider of models is away wait without a slot; one of them asks it again, and the others follow."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from services.common.db.columns import from_microseconds
from services.gateway.jobs.retries import Retries
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.schema.outages import model_outages
from services.gateway.values.jobs import WaitsFor
from services.lifecycle.model.outcome import Failure, ModelOutage, Outcome, Retry
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, books, claimed, set_job

AWAY = Retry(Failure("MODEL_UNAVAILABLE", "away"), 30.0, outage=ModelOutage("one"))
LONGEST_PAUSE = 600.0


@pytest.fixture
async def book(gateway_url: str) -> AsyncIterator[Books]:
    async with books(gateway_url) as opened:
        yield opened


async def waits(book: Books) -> list[float]:
    """Return after how many seconds each job that waits for the provider is to begin, the soonest first."""
    of_jobs = select(jobs.c.wake_time - now()).where(jobs.c.outage_provider == "one", jobs.c.state == "PENDING")
    async with book.engine.begin() as connection:
        return sorted(each / 1e6 for each in (await connection.execute(of_jobs)).scalars())


async def pass_time(book: Books, seconds: float) -> None:
    """Let time pass, as far as outages know of it."""
    async with book.engine.begin() as connection:
        earlier = {"wake_time": jobs.c.wake_time - round(seconds * 1e6)}
        await connection.execute(update(jobs).where(jobs.c.state == "PENDING").values(earlier))
        before = {"next_time": model_outages.c.next_time - round(seconds * 1e6)}
        await connection.execute(update(model_outages).values(before))


async def test_a_job_without_its_model_waits_and_loses_no_attempt(book: Books) -> None:
    cell, job = await book.cell("cell"), await book.admit()
    for number in range(8):
        lease = await claimed(cell)
        assert (lease.attempt, lease.last_attempt) == (1 + number, 3 + number)
        await cell.retry(lease, AWAY)
        assert await cell.claim() is None
        view = await book.store.job(job.spec.job_id)
        assert (view.state, view.waiting_for and view.waiting_for.kind) == (
            JobState.PENDING,
            WaitsFor.MODEL_UNAVAILABLE,
        )
        (seconds,) = await waits(book)
        assert min(15 * 2**number, LONGEST_PAUSE / 2) - 5 < seconds <= min(30 * 2**number, LONGEST_PAUSE)
        assert view.waiting_for is not None
        assert "model provider one does not answer, and is asked again at 2" in view.waiting_for.message
        await pass_time(book, seconds + 1)
    await set_job(book, job.spec.job_id, outage_since=now() - 7200 * 1_000_000)
    lease = await claimed(cell)
    assert 7190 < lease.outage_seconds < 7300
    await cell.retry(lease, dataclasses.replace(AWAY, is_new_outage=True))
    (seconds,) = await waits(book)
    assert seconds <= 30, "it had answered in between"
    await pass_time(book, seconds + 1)
    assert (await claimed(cell)).outage_seconds < 60


async def test_one_job_asks_again_and_the_others_are_put_off(book: Books) -> None:
    cell = await book.cell("cell")
    for number in range(5):
        await book.admit(f"Job {number}.")
    for lease in [await claimed(cell) for _ in range(5)]:
        await cell.retry(lease, AWAY)
    for _ in range(4):
        first, *others = await waits(book)
        assert len(others) == 4
        assert min(others) >= first + 60, "nobody else asks before that one has found the provider away again"
        await pass_time(book, first + 1)
        probe = await claimed(cell)
        assert await cell.claim() is None
        await cell.retry(probe, AWAY)
    first, *_ = await waits(book)
    await pass_time(book, first + 1)
    await cell.finish(await claimed(cell), Outcome(JobState.SUCCEEDED))
    soonest, *_, last = await waits(book)
    assert 0 < soonest < last < 121, "it answers: the others follow, not all at once"


async def test_a_quota_is_waited_for_until_it_is_back(book: Books) -> None:
    cell = await book.cell("cell")
    for number in range(3):
        await book.admit(f"Job {number}.")
    leases = [await claimed(cell) for _ in range(3)]
    back = datetime.now(UTC) + timedelta(hours=5)
    await cell.retry(leases[0], AWAY)
    await cell.retry(leases[1], dataclasses.replace(AWAY, outage=ModelOutage("one", back)))
    await cell.retry(leases[2], AWAY)
    soonest, *_ = await waits(book)
    assert soonest >= 5 * 3600 - 60, "who was told less waits for it, too"
    async with book.engine.begin() as connection:
        (next_time,) = (await connection.execute(select(model_outages.c.next_time))).scalars()
    assert abs(from_microseconds(next_time) - back) < timedelta(seconds=1)


async def test_a_provider_of_one_project_or_another_is_not_held_up(book: Books) -> None:
    cell = await book.cell("cell")
    await book.admit()
    far = dataclasses.replace(AWAY, outage=ModelOutage("two", datetime.now(UTC) + timedelta(days=1)))
    await cell.retry(await claimed(cell), far)
    await book.admit()
    await cell.retry(await claimed(cell), AWAY)
    (seconds,) = await waits(book)
    assert seconds <= 30


async def test_a_job_that_waits_for_its_model_can_be_cancelled_and_tried_at_once(book: Books) -> None:
    cell, job = await book.cell("cell"), await book.admit()
    await cell.retry(await claimed(cell), AWAY)
    assert (await book.store.cancel_job(job.spec.job_id)).state is JobState.CANCELLED
    await Retries(book.engine, book.notifier).retry(job.spec.job_id, from_snapshot=False, key=None)
    assert (await claimed(cell)).outage_seconds == 0


async def test_a_snapshot_goes_along_while_its_cell_is_there(book: Books) -> None:
    cell, other = await book.cell("cell"), await book.cell("other")
    job = await book.admit()
    await cell.retry(await claimed(cell), dataclasses.replace(AWAY, snapshot_id="snap-1"))
    (seconds,) = await waits(book)
    await pass_time(book, seconds + 1)
    assert await other.claim() is None
    lease = await claimed(cell)
    assert (lease.job_id, lease.snapshot_id) == (job.spec.job_id, "snap-1")
