"""Which job a cell may take, and taking it. All of it works inside the caller's transaction.

May be taken: what is PENDING and whose time has come; what was parked and is awake again, by the cell that its work
lies on, or by another when that one is away; what is RUNNING under a lease that has run out.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, case, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import as_number
from services.common.ids import new_id
from services.gateway.jobs.ending import end_job
from services.gateway.jobs.notes import end_executions, new_execution
from services.gateway.jobs.tables import cells, executions, jobs, now
from services.lifecycle.ledger import Lease
from services.lifecycle.model.order import Order
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import ExecutionState, JobState, Purpose
from services.lifecycle.model.value import load

MAX_ATTEMPTS: Final = 3
AWAY_LEASES: Final = 3
"""A cell that has not beaten for so many leases is away."""
_CELL_LOST: Final = Failure(
    "NODE_LOST", "the machine that worked on it did not come back; what it had done there is on that machine"
)
_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a claimer takes: only of these projects, kinds and engines, where None means any.

    `capacity` is how many it holds at most; what it has lost, and gets back, counts.
    """

    project_ids: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    engines: frozenset[str] | None = None
    capacity: int | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """What holds of a job that is wanted."""
        named = ((jobs.c.project_id, self.project_ids), (jobs.c.kind, self.kinds), (jobs.c.engine, self.engines))
        return [column.in_(sorted(values)) for column, values in named if values is not None]


ANY: Final = Wanted()


def lease_end(lease_seconds: float) -> ColumnElement[int]:
    """Return when a lease that is given now runs out."""
    return now() + round(lease_seconds * _SECOND)


async def claim(connection: AsyncConnection, cell_id: str, lease_seconds: float, wanted: Wanted = ANY) -> Lease | None:
    """Give a cell the next job that it may take, and wants; see Ledger.claim."""
    if wanted.capacity is not None and await _held(connection, cell_id) >= wanted.capacity:
        return None
    while row := await _next(connection, cell_id, lease_seconds, wanted):
        lease = await _take(connection, row, cell_id, lease_seconds)
        if lease is not None:
            return lease
    return None


async def _held(connection: AsyncConnection, cell_id: str) -> int:
    held = (jobs.c.cell_id == cell_id, jobs.c.state == JobState.RUNNING, jobs.c.held)
    return int((await connection.execute(select(func.count()).where(*held))).scalar_one())


async def _next(connection: AsyncConnection, cell_id: str, lease_seconds: float, wanted: Wanted) -> Row[Any] | None:
    """Lock and return the job whose turn it is. What somebody else has locked is looked at the next time."""
    lost = and_(jobs.c.state == JobState.RUNNING, jobs.c.cell_id == cell_id, jobs.c.held.is_(False))
    lost_by_others = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now())
    at_home = or_(jobs.c.cell_id == cell_id, ~_is_here(lease_seconds))
    queued = and_(
        jobs.c.wake_time <= now(),
        or_(jobs.c.state == JobState.PENDING, and_(jobs.c.state == JobState.AWAITING_APPROVAL, at_home)),
        jobs.c.bound_cell_id.in_(("", cell_id)),
    )
    statement = (
        select(jobs)
        .where(or_(lost, and_(or_(lost_by_others, queued), *wanted.conditions)))
        .order_by(case((lost, 0), else_=1), jobs.c.priority.desc(), jobs.c.create_time, jobs.c.job_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(statement)).first()


def _is_here(lease_seconds: float) -> ColumnElement[bool]:
    """Whether the job's cell has beaten of late."""
    since = now() - round(AWAY_LEASES * lease_seconds * _SECOND)
    return exists().where(cells.c.cell_id == jobs.c.cell_id, as_number(cells.c.beat_time) >= since)


async def _take(connection: AsyncConnection, row: Row[Any], cell_id: str, lease_seconds: float) -> Lease | None:
    """Give a locked row to a cell; None when it was ended, because too many cells were lost over it."""
    attempt, execution_id = row.attempt, row.execution_id
    if row.state != JobState.PENDING and row.cell_id != cell_id:
        attempt += 1
        if attempt > MAX_ATTEMPTS:
            await end_job(connection, row, Outcome(JobState.FAILED, _CELL_LOST))
            return None
        execution_id = await _next_attempt(connection, row.job_id, attempt)
    taken = update(jobs).where(jobs.c.job_id == row.job_id)
    await connection.execute(
        taken.values(
            state=JobState.RUNNING,
            attempt=attempt,
            execution_id=execution_id,
            fence=row.fence + 1,
            cell_id=cell_id,
            held=True,
            lease_until=lease_end(lease_seconds),
            revision=row.revision + 1,
            start_time=func.coalesce(jobs.c.start_time, now()),
        )
    )
    await connection.execute(
        update(executions).where(executions.c.execution_id == execution_id).values(cell_id=cell_id)
    )
    order = load(Order, row.definition)
    return Lease(row.job_id, row.fence + 1, attempt, execution_id, order, row.cancel_requested)


async def _next_attempt(connection: AsyncConnection, job_id: str, attempt: int) -> str:
    execution_id = new_id("exec")
    await end_executions(connection, job_id, ExecutionState.FAILED, _CELL_LOST.reason, _CELL_LOST.message)
    await connection.execute(insert(executions).values(new_execution(execution_id, job_id, attempt, Purpose.AGENT)))
    return execution_id
