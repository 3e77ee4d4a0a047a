"""Claims jobs: the only place where a lease begins. Everything here works inside the caller's transaction.

Claims come one after the other, over all cells: on PostgreSQL through an advisory lock, on SQLite because every
transaction has the only write lock. So what a claim counts stays true until it is committed, and limits are exact.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.common.db.outages import outage
from services.common.reasons import is_listed
from services.gateway.ledger.attempts import failure_of_agent, give_up, next_attempt
from services.gateway.ledger.claim_queries import ANY_JOB, QUEUED, ClaimFilter, Terms, queries
from services.gateway.ledger.ending import end_job
from services.gateway.ledger.fleet import Member, agents_left_to_others, left_to_others, members
from services.gateway.ledger.hooks import calls_hooks_on_cancel
from services.gateway.ledger.scheduling import DEFAULT_AGEING_SECONDS, THIS_CELL
from services.gateway.ledger.timeline import tell
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import IS_RUNNING, executions, jobs, stages
from services.gateway.values.facts import JobTaken
from services.lifecycle.ledger import PATIENCE_SECONDS, Lease
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState, StageState
from services.lifecycle.model.value import load

_CELL_LOST: Final = Failure(
    "NODE_LOST", "the machine that worked on the job did not come back; what was done there is still on that machine"
)
_BOUND_LOST: Final = (
    "cell {cell_id}, which alone has what the job was to start from, has been away for more than an hour; `boatyard"
    " retry` begins without it"
)
_WITHOUT_SNAPSHOT: Final = "begins without the snapshot of the attempt before: cell {cell_id}, which has it, is away"
_SECOND: Final = 1_000_000
_CLAIMS_LOCK: Final = 0x636C6169  # any number: every claim takes this lock


def lease_end(lease_seconds: float) -> ColumnElement[int]:
    """Return when a lease that begins now expires."""
    return now() + round(lease_seconds * _SECOND)


# Expired leases do not count, so that a machine that was cut off while it was full can take its jobs back.
_COUNT_HELD: Final = select(func.count()).where(
    IS_RUNNING, jobs.c.cell_id == THIS_CELL, jobs.c.held, jobs.c.lease_until >= now()
)
_TAKE: Final = (
    update(jobs)
    .where(jobs.c.job_id == bindparam("this_job"))
    .values(
        state=JobState.RUNNING,
        fence=jobs.c.fence + 1,
        held=True,
        lease_until=now() + bindparam("duration", type_=BigInteger),
        revision=jobs.c.revision + 1,
        start_time=func.coalesce(jobs.c.start_time, now()),
    )
)
_ASSIGN: Final = (
    update(executions)
    .where(executions.c.execution_id == bindparam("this_execution"))
    .values(cell_id=case((executions.c.cell_id == "", THIS_CELL), else_=executions.c.cell_id))
    .returning(executions.c.cell_id)
)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The attempt that a claimer continues with. `failure` is why neither it nor anybody else can."""

    number: int
    execution_id: str
    snapshot_id: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Claimer:
    """Claims jobs for one cell. `ageing_seconds` is the wait that a point of priority is worth: see `scheduling`."""

    cell_id: str
    lease_seconds: float
    ageing_seconds: float = DEFAULT_AGEING_SECONDS

    async def claim(
        self, connection: AsyncConnection, claim_filter: ClaimFilter = ANY_JOB, *, takes_over: bool = True
    ) -> Lease | None:
        """Take the next job that may be taken and matches the filter; see Ledger.claim.

        Without `takes_over`, no job of another cell is taken. What another cell allows and this one does not is left to
        the other. A cell that is paused or has troubles takes only jobs that it has begun.
        Raises Unavailable (DATABASE_UNAVAILABLE) when the database stood still; nothing may be committed after that.
        """
        start = time.monotonic()
        lease = await self._claim(connection, claim_filter, takes_over=takes_over)
        # While the database stood still, cells that beat every third of a lease could not beat, and we saw the clock
        # only afterwards: a lease may look expired for that reason alone.
        if takes_over and lease is not None and time.monotonic() - start > self.lease_seconds * 2 / 3:
            raise outage()
        return lease

    async def _claim(self, connection: AsyncConnection, claim_filter: ClaimFilter, *, takes_over: bool) -> Lease | None:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIMS_LOCK})
        if claim_filter.capacity is not None and await self._count_held(connection) >= claim_filter.capacity:
            return None
        fleet = await members(connection)
        left = await left_to_others(connection, self.cell_id, fleet)
        left_agents = agents_left_to_others(self.cell_id, fleet)
        terms = Terms(
            claim_filter,
            len(left[0]) if left else 0,
            bool(left_agents),
            all(cell.takes_new_jobs for cell in fleet if cell.cell_id == self.cell_id),
            takes_over,
            self.lease_seconds,
            self.ageing_seconds,
        )
        found = queries(terms)
        this_claim = {"this_cell": self.cell_id, "left_to_others": left, "left_agents": left_agents}
        while (row := (await connection.execute(found.expired, this_claim)).first()) is not None:
            lease = await self._take(connection, row, fleet)
            if lease is not None:
                return lease
        for job_id in (await connection.execute(found.waiting, this_claim)).scalars().all():
            row = (await connection.execute(QUEUED, {"this_job": job_id})).first()
            lease = None if row is None else await self._take(connection, row, fleet)
            if row is not None and lease is not None:
                return replace(lease, is_last=not row.others_wait)
        return None

    async def _count_held(self, connection: AsyncConnection) -> int:
        return int((await connection.execute(_COUNT_HELD, {"this_cell": self.cell_id})).scalar_one())

    async def _take(self, connection: AsyncConnection, row: Row[Any], fleet: Collection[Member]) -> Lease | None:
        """Lease a locked job to this cell; return None when it ended: its end was requested, and its attempt is lost.

        A job that cannot be begun anew, or is to call hooks at its end, is leased too, with its outcome recorded: what
        remains is to report it.
        """
        spec = load(JobSpec, row.definition)
        attempt = await self._attempt(connection, row, spec)
        if attempt.failure is not None and row.cancel_requested:
            cancelled = Outcome(JobState.CANCELLED)
            if not await calls_hooks_on_cancel(connection, spec):
                await end_job(connection, row, cancelled)
                return None
            await give_up(connection, row, cancelled)
        elif attempt.failure is not None:
            await give_up(connection, row, Outcome(JobState.FAILED, attempt.failure))
        elif row.snapshot_id and not attempt.snapshot_id:
            text = _WITHOUT_SNAPSHOT.format(cell_id=row.bound_cell_id)
            await tell(connection, row.job_id, attempt.number, "snapshot", text)
        taken = {
            "this_job": row.job_id,
            "attempt": attempt.number,
            "execution_id": attempt.execution_id,
            "snapshot_id": attempt.snapshot_id,
            "bound_cell_id": row.bound_cell_id if row.bound_cell_id == self.cell_id else "",
            "cell_id": self.cell_id,
            "duration": round(self.lease_seconds * _SECOND),
        }
        await connection.execute(_TAKE, taken)
        is_new = row.state == JobState.PENDING or attempt.number != row.attempt
        is_taken_over = row.state == JobState.RUNNING and row.cell_id != self.cell_id
        publish_on_commit(connection, JobTaken(is_new=is_new, is_taken_over=is_taken_over))
        is_moved = not await self._assign_execution(connection, attempt.execution_id)
        lease = Lease(
            row.job_id,
            row.fence + 1,
            attempt.number,
            attempt.execution_id,
            spec,
            cancel_requested=row.cancel_requested,
            is_moved=is_moved,
            last_attempt=row.last_attempt,
            snapshot_id=attempt.snapshot_id,
            outage_seconds=await _since(connection, row.outage_since),
        )
        return await with_refusals(connection, lease, row, self.cell_id, fleet)

    async def _attempt(self, connection: AsyncConnection, row: Row[Any], spec: JobSpec) -> _Attempt:
        """Return the attempt to continue with: a new one when the last was another cell's and may be done anew."""
        is_other_cells = row.state != JobState.PENDING and row.cell_id != self.cell_id
        is_published = is_other_cells and await _is_published(connection, row)
        is_bound_elsewhere = row.bound_cell_id not in {"", self.cell_id} and not is_published
        last = _Attempt(row.attempt, row.execution_id, "" if is_bound_elsewhere else row.snapshot_id)
        is_wanted = row.waits_for_cell or (spec.snapshot_id and not row.snapshot_id) or spec.kept is not None
        if is_bound_elsewhere and is_wanted:
            return replace(last, failure=Failure("NODE_LOST", _BOUND_LOST.format(cell_id=row.bound_cell_id)))
        if not is_other_cells or is_published:
            return last
        agents_own = await failure_of_agent(connection, row)
        if agents_own is not None and not is_listed(agents_own.reason, spec.policy.retry_on):
            return replace(last, failure=agents_own)
        if last.number < row.last_attempt and _CELL_LOST.reason in spec.policy.retry_on:
            execution_id = await next_attempt(connection, row, _CELL_LOST)
            return replace(last, number=last.number + 1, execution_id=execution_id)
        return replace(last, failure=Failure(_CELL_LOST.reason, f"{_CELL_LOST.message} (attempt {last.number})"))

    async def _assign_execution(self, connection: AsyncConnection, execution_id: str) -> bool:
        """Assign an execution to this cell unless it has a cell; return True when it is on this cell."""
        this = {"this_execution": execution_id, "this_cell": self.cell_id}
        return bool((await connection.execute(_ASSIGN, this)).scalar_one() == self.cell_id)


async def with_refusals(
    connection: AsyncConnection, lease: Lease, row: Row[Any], cell_id: str, fleet: Collection[Member]
) -> Lease:
    """Return a lease of a cell with what is known, by the job's row, of the machines that may refuse it."""
    tried = {cell_id, *row.refused_by.split()}
    others = (other for other in fleet if other.cell_id not in tried)
    has_other_place = not row.bound_cell_id and any(other.could_take(lease.spec.agent) for other in others)
    refused = await _since(connection, row.refused_since)
    patience = max(0, PATIENCE_SECONDS - refused)
    return replace(lease, has_other_place=has_other_place, patience_seconds=patience)


async def _since(connection: AsyncConnection, moment: int) -> int:
    """Return the seconds since a moment in microseconds; 0 for none."""
    return int((await connection.execute(select(now() - moment))).scalar_one()) // _SECOND if moment else 0


async def _is_published(connection: AsyncConnection, row: Row[Any]) -> bool:
    """Return True when the end of a job's attempt is public: then it is continued, and not begun anew."""
    ended = and_(stages.c.name.in_(("push", "error")), stages.c.state == StageState.DONE)
    published = or_(ended, stages.c.name == "post-hook-1")
    of_attempt = (stages.c.job_id == row.job_id, stages.c.attempt == row.attempt)
    return (await connection.execute(select(stages.c.name).where(*of_attempt, published).limit(1))).first() is not None
