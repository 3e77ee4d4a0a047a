"""Counts jobs and checkpoints by state, and durations of jobs, by their rows and the totals of rows that are gone.

Everything here works inside the caller's transaction.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, func, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import as_number
from services.gateway.ledger.questions import IS_OVER
from services.gateway.schema.checkpoints import checkpoints
from services.gateway.schema.jobs import jobs
from services.gateway.schema.sql import insert_if_absent
from services.gateway.schema.totals import totals
from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.states import JobState

JOBS: Final = "jobs"
DURATIONS: Final = "durations"
CHECKPOINTS: Final = "checkpoints"

BOUNDS: Final = (1, 5, 10, 60, 300, 900, 3600, 14400, 86400)
"""The buckets of durations, in seconds."""
BEYOND: Final = -1
"""The bucket of what lasted longer."""

_SECOND: Final = 1_000_000
_LASTED: Final = as_number(jobs.c.end_time) - as_number(jobs.c.start_time)
_BUCKET: Final = case(*((bound * _SECOND >= _LASTED, bound) for bound in BOUNDS), else_=BEYOND)


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers by series, status and bucket (0 where a series has none), and the sums of durations in microseconds."""

    numbers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    microseconds: Counter[tuple[str, str, int]] = field(default_factory=Counter)


async def count_all(connection: AsyncConnection) -> Tally:
    """Count every job and checkpoint that there is, or that has ever ended."""
    tally = await _count_rows(connection, true(), true())
    for row in (await connection.execute(select(totals))).all():
        key = (row.series, row.status, row.at_most_seconds)
        tally.numbers[key] += row.number
        tally.microseconds[key] += row.microseconds
    return tally


async def keep_count(connection: AsyncConnection, job_ids: Sequence[str], *, goes_on: bool = False) -> None:
    """Add jobs that have ended to the totals, before they are removed, or (`goes_on`) begin again. They are locked."""
    asked = None if goes_on else checkpoints.c.job_id.in_(job_ids)
    await _add(connection, await _count_rows(connection, jobs.c.job_id.in_(job_ids), asked), 1)


async def count_no_more(connection: AsyncConnection, job_id: str) -> None:
    """Take a job that has just ended as it did before out of the count: that end is in the totals. It is locked."""
    await _add(connection, await _count_rows(connection, jobs.c.job_id == job_id, None), -1)


async def _add(connection: AsyncConnection, tally: Tally, sign: int) -> None:
    for key, number in sorted(tally.numbers.items()):  # in one order, so that two who add wait for each other in it
        names = dict(zip(("series", "status", "at_most_seconds"), key, strict=True))
        await insert_if_absent(connection, totals, {**names, "number": 0, "microseconds": 0})
        this = [totals.c[name] == value for name, value in names.items()]
        more = {
            "number": totals.c.number + sign * number,
            "microseconds": totals.c.microseconds + sign * tally.microseconds[key],
        }
        await connection.execute(update(totals).where(*this).values(more))


async def _count_rows(
    connection: AsyncConnection, of_jobs: ColumnElement[bool], asked: ColumnElement[bool] | None
) -> Tally:
    tally = Tally()
    by_state = select(jobs.c.state, func.count()).where(of_jobs).group_by(jobs.c.state)
    for status, number in (await connection.execute(by_state)).all():
        tally.numbers[JOBS, JobState(status), 0] += number
    for status, bucket, number, lasted in (await connection.execute(_durations(of_jobs))).all():
        tally.numbers[DURATIONS, JobState(status), bucket] += number
        tally.microseconds[DURATIONS, JobState(status), bucket] += int(lasted)
    if asked is not None:
        for status, is_over, number in (await connection.execute(_questions(asked))).all():
            unanswered = status == CheckpointState.PENDING
            state = CheckpointState.EXPIRED if unanswered and is_over else CheckpointState(status)
            tally.numbers[CHECKPOINTS, state, 0] += number
    return tally


def _durations(of_jobs: ColumnElement[bool]) -> Select[Any]:
    bucket = _BUCKET.label("bucket")
    ended = (jobs.c.end_time.is_not(None), jobs.c.start_time.is_not(None), of_jobs)
    return select(jobs.c.state, bucket, func.count(), func.sum(_LASTED)).where(*ended).group_by(jobs.c.state, bucket)


def _questions(asked: ColumnElement[bool]) -> Select[Any]:
    """Select the numbers of checkpoints by state, and of those that are unanswered by whether their time is over."""
    is_over = case((checkpoints.c.state == CheckpointState.PENDING, IS_OVER), else_=literal(False)).label("is_over")
    return select(checkpoints.c.state, is_over, func.count()).where(asked).group_by(checkpoints.c.state, is_over)
