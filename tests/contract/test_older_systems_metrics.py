"""The counters with the names of the systems before: by status, and nothing that has happened is ever taken back."""

from datetime import timedelta

import pytest
from prometheus_client.metrics_core import Metric

from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.jobs.retention import remove_expired
from services.gateway.jobs.retries import Retries
from services.gateway.ledger.totals import BOUNDS, count_all
from services.gateway.metrics.totals import total_metrics
from services.gateway.values.checkpoints import CheckpointDecision, Decider
from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.job_spec import KeptResult
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState
from tests.contract.test_turns import NOW
from tests.kit.ledger import Books, claimed, expire_checkpoints, question, set_job

SUCCEEDED = Outcome(JobState.SUCCEEDED)
FAILED = Outcome(JobState.FAILED, Failure("AGENT_FAILED", "it exited with 3"))


async def read(book: Books) -> dict[str, Metric]:
    async with book.engine.begin() as connection:
        return {metric.name: metric for metric in total_metrics(await count_all(connection))}


async def by_status(book: Books, name: str) -> dict[str, float]:
    """Return the values of a counter by its status, without those that are 0."""
    samples = (await read(book))[name].samples
    return {sample.labels["status"]: sample.value for sample in samples if sample.value}


async def durations(book: Books, status: str) -> dict[str, float]:
    """Return the histogram of a status: by bound, and `sum`."""
    found = {}
    for sample in (await read(book))["agent_jobs_duration_seconds"].samples:
        if sample.labels["status"] == status:
            found[sample.labels.get("le", sample.name.rpartition("_")[2])] = sample.value
    return found


async def ended(book: Books, outcome: Outcome, seconds: float | None = None) -> str:
    """Let a job end, having taken so long."""
    cell = await book.cell("cell")
    await book.admit()
    lease = await claimed(cell)
    await cell.finish(lease, outcome)
    if seconds is not None:
        await set_job(book, lease.job_id, start_time=NOW - timedelta(seconds=seconds), end_time=NOW)
    return lease.job_id


async def test_jobs_are_told_by_status_live_ones_as_they_are_now(book: Books) -> None:
    await ended(book, SUCCEEDED)
    await ended(book, FAILED)
    await ended(book, FAILED)
    await book.admit()
    await book.admit()
    await claimed(await book.cell("cell"))
    assert await by_status(book, "agent_jobs") == {"SUCCEEDED": 1, "FAILED": 2, "PENDING": 1, "RUNNING": 1}


@pytest.mark.parametrize("seconds", [0, 1, 1.000001, 7, 86_400, 86_401])
async def test_durations_are_told_by_status_in_buckets(book: Books, seconds: float) -> None:
    await ended(book, FAILED, seconds)
    told = await durations(book, "FAILED")
    assert told == {
        **{f"{bound:.1f}": float(seconds <= bound) for bound in BOUNDS},
        "+Inf": 1.0,
        "count": 1.0,
        "sum": pytest.approx(seconds),
    }
    assert (await durations(book, "SUCCEEDED"))["+Inf"] == 0


async def test_what_never_began_has_no_duration(book: Books) -> None:
    await book.store.cancel_job((await book.admit()).spec.job_id)
    assert await by_status(book, "agent_jobs") == {"CANCELLED": 1}
    assert (await durations(book, "CANCELLED"))["+Inf"] == 0


async def test_a_push_does_not_count_a_job_again(book: Books) -> None:
    """It does nothing of the job once more; but a job that had failed may succeed by it."""
    job_id = await ended(book, FAILED, 7)
    before = await durations(book, "FAILED")
    cell, retries = await book.cell("cell"), Retries(book.engine, book.notifier)
    result = KeptResult("c" * 40, "b" * 40), "cell"
    for number in range(2):
        await retries.push(job_id, result=result, key=None)
        assert await by_status(book, "agent_jobs") == {"FAILED": 1, "PENDING": 1}
        await cell.finish(await claimed(cell), FAILED)
        assert await by_status(book, "agent_jobs") == {"FAILED": 1}, number
        assert await durations(book, "FAILED") == before
    await retries.push(job_id, result=result, key=None)
    await cell.finish(await claimed(cell), SUCCEEDED)
    assert await by_status(book, "agent_jobs") == {"FAILED": 1, "SUCCEEDED": 1}
    assert await remove_expired(book.engine, -1) == 1
    assert await by_status(book, "agent_jobs") == {"FAILED": 1, "SUCCEEDED": 1}
    assert await durations(book, "FAILED") == before


async def test_neither_retries_nor_retention_take_back_what_was_counted(book: Books) -> None:
    first = await ended(book, FAILED, 7)
    await ended(book, SUCCEEDED, 3)
    await Retries(book.engine, book.notifier).retry(first, from_snapshot=False, key=None)
    assert await by_status(book, "agent_jobs") == {"FAILED": 1, "SUCCEEDED": 1, "PENDING": 1}
    cell = await book.cell("cell")
    await cell.finish(await claimed(cell), FAILED)
    await set_job(book, first, start_time=NOW - timedelta(seconds=20), end_time=NOW)
    told = {"FAILED": 2.0, "SUCCEEDED": 1.0}
    lasted = await durations(book, "FAILED")
    assert (lasted["10.0"], lasted["60.0"], lasted["sum"]) == (1, 2, pytest.approx(27))
    assert await by_status(book, "agent_jobs") == told
    while await remove_expired(book.engine, -1, at_once=1):
        assert await by_status(book, "agent_jobs") == told
        assert await durations(book, "FAILED") == lasted
    async with book.engine.begin() as connection:
        assert (await count_all(connection)).numbers, "all of it is in the totals now"


@pytest.mark.parametrize("state", [CheckpointState.APPROVED, CheckpointState.REJECTED, CheckpointState.EXPIRED, None])
async def test_checkpoints_are_told_by_status_also_when_their_jobs_are_gone(
    book: Books, state: CheckpointState | None
) -> None:
    cell = await book.cell("cell")
    await book.admit()
    lease = await claimed(cell)
    await cell.park(lease, question(lease))
    (asked,) = (await book.store.job(lease.job_id)).checkpoints
    assert await by_status(book, "agent_checkpoints") == {"PENDING": 1}
    if state is CheckpointState.EXPIRED:
        await expire_checkpoints(book)
    elif state is not None:
        decision = CheckpointDecision(state=state, comment="", decider=Decider(name="ada", peer="", via=""))
        await CheckpointStore(book.engine, book.notifier).decide(asked.checkpoint_id, decision)
    else:
        await book.store.cancel_job(lease.job_id)
    lease = await claimed(cell)
    await cell.finish(lease, Outcome(JobState.CANCELLED) if state is None else SUCCEEDED)
    told = {state or CheckpointState.WITHDRAWN: 1.0}
    assert await by_status(book, "agent_checkpoints") == told
    assert await remove_expired(book.engine, -1) == 1
    assert await by_status(book, "agent_checkpoints") == told
