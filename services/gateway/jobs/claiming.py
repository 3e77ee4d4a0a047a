"""Taking a job: the one place where a lease begins. All of it works inside the caller's transaction.

Claims come one after the other, over all cells: on PostgreSQL by a lock of their own, on SQLite because every
transaction has the only write lock. So what a claim counts stays true until it is committed, and limits are exact.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.common.db.outages import outage
from services.gateway.facts import JobTaken
from services.gateway.jobs.attempts import give_up, next_attempt
from services.gateway.jobs.ending import end_job
from services.gateway.jobs.tables import IS_QUEUED, IS_RUNNING, cells, executions, jobs, now, stages
from services.gateway.jobs.turns import DEFAULT_AGEING_SECONDS, may_be_taken, next_of_projects
from services.lifecycle.ledger import Lease
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState, StageState
from services.lifecycle.model.value import load

_CELL_LOST: Final = Failure(
    "NODE_LOST", "the machine that worked on it did not come back; what it had done there is on that machine"
)
_SNAPSHOT_LOST: Final = Failure(
    "NODE_LOST", "the machine did not come back that has the snapshot from which the job was to begin"
)
_SECOND: Final = 1_000_000
_CLAIMS: Final = 0x636C6169  # any number that every claim takes


def lease_end(lease_seconds: float) -> ColumnElement[int]:
    """Return when a lease that is given now runs out."""
    return now() + round(lease_seconds * _SECOND)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a claimer takes: only of these projects, kinds and engines, where None means any.

    `capacity` is how many it holds at most, under leases that have not run out.
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


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What a claimer goes on with; `failure` says why it cannot, and nobody can."""

    number: int
    execution_id: str
    snapshot_id: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Claimer:
    """Takes jobs for one cell. `ageing_seconds` is how long a point of priority is worth: see `turns`."""

    cell_id: str
    lease_seconds: float
    ageing_seconds: float = DEFAULT_AGEING_SECONDS

    async def claim(
        self, connection: AsyncConnection, wanted: Wanted = ANY, *, takes_over: bool = True
    ) -> Lease | None:
        """Take the next job that may be taken, and is wanted; see Ledger.claim.

        Without `takes_over` nothing is taken that was another cell's. A cell that is paused takes what it has begun.
        Raises Unavailable (DATABASE_UNAVAILABLE), after which nothing may be committed, when the database stood still.
        """
        began = time.monotonic()
        lease = await self._claim(connection, wanted, takes_over=takes_over)
        # Who beats each third of a lease could not, and loses it by what we have seen after that: the moment counts.
        if takes_over and lease is not None and time.monotonic() - began > self.lease_seconds * 2 / 3:
            raise outage()
        return lease

    async def _claim(self, connection: AsyncConnection, wanted: Wanted, *, takes_over: bool) -> Lease | None:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIMS})
        if wanted.capacity is not None and await self._held(connection) >= wanted.capacity:
            return None
        conditions = wanted.conditions
        if await self._is_paused(connection):
            conditions.append(and_(jobs.c.cell_id == self.cell_id, jobs.c.state != JobState.PENDING))
        while (row := await self._lost(connection, conditions, takes_over)) is not None:
            lease = await self._take(connection, row)
            if lease is not None:
                return lease
        waiting = await next_of_projects(
            connection,
            self.cell_id,
            conditions,
            takes_over=takes_over,
            lease_seconds=self.lease_seconds,
            ageing_seconds=self.ageing_seconds,
        )
        for job_id in waiting:
            # What somebody else has locked, to end it, is passed over.
            row = await _locked(connection, select(jobs).where(jobs.c.job_id == job_id, IS_QUEUED))
            lease = None if row is None else await self._take(connection, row)
            if lease is not None:
                return lease
        return None

    async def _held(self, connection: AsyncConnection) -> int:
        # What has run out is not held: a machine that was cut off with all that it has room for takes it back.
        ours = (jobs.c.cell_id == self.cell_id, jobs.c.held, jobs.c.lease_until >= now())
        held = select(func.count()).where(IS_RUNNING, *ours)
        return int((await connection.execute(held)).scalar_one())

    async def _is_paused(self, connection: AsyncConnection) -> bool:
        paused = select(cells.c.paused).where(cells.c.cell_id == self.cell_id)
        return bool((await connection.execute(paused)).scalar_one_or_none())

    async def _lost(
        self, connection: AsyncConnection, wanted: Sequence[ColumnElement[bool]], takes_over: bool
    ) -> Row[Any] | None:
        """Lock a job whose lease is over: our own from before a restart, or one whose lease has run out.

        It counts as running all the while, so no limit is in its way, and it comes before all that waits.
        """
        own = and_(jobs.c.cell_id == self.cell_id, jobs.c.held.is_(False))
        whose = may_be_taken(self.cell_id, self.lease_seconds) if takes_over else jobs.c.cell_id == self.cell_id
        run_out = and_(jobs.c.lease_until < now(), whose, *wanted)
        lost = select(jobs).where(IS_RUNNING, or_(own, run_out)).order_by(own.desc(), jobs.c.turn, jobs.c.job_id)
        return await _locked(connection, lost.limit(1))

    async def _take(self, connection: AsyncConnection, row: Row[Any]) -> Lease | None:
        """Give a locked row to this cell; None when it was ended, because somebody wished so and its attempt is lost.

        One that cannot be begun anew is given too, with its failure written down: what is left is to tell of it.
        """
        order = load(JobSpec, row.definition)
        attempt = await self._attempt(connection, row, order)
        if attempt.failure is not None and row.cancel_requested:
            await end_job(connection, row, Outcome(JobState.CANCELLED))
            return None
        if attempt.failure is not None:
            await give_up(connection, row, attempt.failure)
        taken = update(jobs).where(jobs.c.job_id == row.job_id)
        await connection.execute(
            taken.values(
                state=JobState.RUNNING,
                attempt=attempt.number,
                execution_id=attempt.execution_id,
                snapshot_id=attempt.snapshot_id,
                bound_cell_id=row.bound_cell_id if row.bound_cell_id == self.cell_id else "",
                fence=row.fence + 1,
                cell_id=self.cell_id,
                held=True,
                lease_until=lease_end(self.lease_seconds),
                revision=row.revision + 1,
                start_time=func.coalesce(jobs.c.start_time, now()),
            )
        )
        is_new = row.state == JobState.PENDING or attempt.number != row.attempt
        is_taken_over = row.state == JobState.RUNNING and row.cell_id != self.cell_id
        publish_on_commit(connection, JobTaken(is_new=is_new, is_taken_over=is_taken_over))
        is_moved = not await self._lies_here(connection, attempt.execution_id)
        return Lease(
            row.job_id,
            row.fence + 1,
            attempt.number,
            attempt.execution_id,
            order,
            cancel_requested=row.cancel_requested,
            is_moved=is_moved,
            last_attempt=row.last_attempt,
            snapshot_id=attempt.snapshot_id,
        )

    async def _attempt(self, connection: AsyncConnection, row: Row[Any], order: JobSpec) -> _Attempt:
        """Return the attempt to go on with: another one where the last was another cell's, and may be done anew."""
        is_anothers = row.state != JobState.PENDING and row.cell_id != self.cell_id
        is_told = is_anothers and await _is_told(connection, row)
        is_bound_elsewhere = row.bound_cell_id not in {"", self.cell_id} and not is_told
        last = _Attempt(row.attempt, row.execution_id, "" if is_bound_elsewhere else row.snapshot_id)
        if is_bound_elsewhere and order.snapshot_id and not row.snapshot_id:  # that is what was ordered
            return replace(last, failure=_SNAPSHOT_LOST)
        if not is_anothers or is_told:
            return last
        if last.number < row.last_attempt and _CELL_LOST.reason in order.policy.retry_on:
            execution_id = await next_attempt(connection, row, _CELL_LOST)
            return replace(last, number=last.number + 1, execution_id=execution_id)
        return replace(last, failure=Failure(_CELL_LOST.reason, f"{_CELL_LOST.message} (attempt {last.number})"))

    async def _lies_here(self, connection: AsyncConnection, execution_id: str) -> bool:
        """Whether an attempt is this cell's; one that nobody has taken becomes so."""
        of_attempt = executions.c.execution_id == execution_id
        await connection.execute(
            update(executions).where(of_attempt, executions.c.cell_id == "").values(cell_id=self.cell_id)
        )
        lies = (await connection.execute(select(executions.c.cell_id).where(of_attempt))).scalar_one()
        return bool(lies == self.cell_id)


async def _is_told(connection: AsyncConnection, row: Row[Any]) -> bool:
    """Whether others know how a job's attempt ended: it is not begun anew then, but goes on where it was."""
    ended = and_(stages.c.name.in_(("push", "error")), stages.c.state == StageState.DONE)
    told = or_(ended, stages.c.name == "post-hook-1")
    of_attempt = (stages.c.job_id == row.job_id, stages.c.attempt == row.attempt)
    return (await connection.execute(select(stages.c.name).where(*of_attempt, told).limit(1))).first() is not None


async def _locked(connection: AsyncConnection, one: Select[Any]) -> Row[Any] | None:
    row: Row[Any] | None = (await connection.execute(one.with_for_update(skip_locked=True))).first()
    return row
