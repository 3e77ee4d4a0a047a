"""What a claim looks for: the queries, built once, because building them takes longer than executing them.

Any cell uses them, with its id as the parameter `this_cell`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, literal, not_, or_, tuple_

from services.gateway.ledger.fleet import CHOICES
from services.gateway.ledger.rows import JOBS
from services.gateway.ledger.scheduling import THIS_CELL, may_be_taken, next_of_projects
from services.gateway.ledger.takes import Takes
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import AWAITING, IS_QUEUED, IS_RUNNING, PENDING, jobs


@dataclass(frozen=True, slots=True)
class ClaimFilter(Takes):
    """Which jobs a claimer takes.

    `capacity` is how many jobs it may hold at most, under leases that have not expired.
    """

    capacity: int | None = None

    @property
    def takes(self) -> Takes:
        """Which jobs it takes as long as it has room."""
        return Takes(self.project_ids, self.kinds, self.engines)

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on the jobs that it takes."""
        limits = ((jobs.c.project_id, self.project_ids), (jobs.c.kind, self.kinds), (jobs.c.engine, self.engines))
        return [column.in_(sorted(values)) for column, values in limits if values is not None]


ANY_JOB: Final = ClaimFilter()
_OTHERS_FIRST: Final = 10_000_000
"""For how long, in microseconds, a cell leaves a job to others that it has just refused; then for longer and longer."""


_ROWS: Final = JOBS.with_for_update(skip_locked=True)
"""Rows of jobs, locked. What somebody else has locked, to end it, is skipped."""
_others: Final = jobs.alias("others")
_OTHERS_WAIT: Final = exists().where(
    _others.c.state.in_((PENDING, AWAITING)), _others.c.wake_time <= now(), _others.c.job_id != jobs.c.job_id
)
QUEUED: Final = _ROWS.add_columns(_OTHERS_WAIT.label("others_wait")).where(
    jobs.c.job_id == bindparam("this_job"), IS_QUEUED
)
"""One that waits, by its id `this_job`, and whether others do."""


@dataclass(frozen=True, slots=True)
class Queries:
    """What a claim looks for, in this order: `expired` locks one job, `waiting` has ids."""

    expired: Select[Any]
    waiting: Select[tuple[str]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides which jobs a claim may take, beside the cell and the rows: see `Claimer.claim`.

    Jobs whose first `choices` CHOICES are in the parameter `left_to_others`, or whose agent is among `left_agents`, are
    left to other cells, unless they have begun here or are bound to this cell.
    """

    claim_filter: ClaimFilter
    choices: int
    leaves_agents: bool
    takes_new_jobs: bool
    takes_over: bool
    lease_seconds: float
    ageing_seconds: float

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on the jobs that may be taken, whether they wait or were lost."""
        begun_here = and_(jobs.c.cell_id == THIS_CELL, jobs.c.state != PENDING)
        refused_by = literal(" ").concat(jobs.c.refused_by).concat(" ")
        has_refused = and_(jobs.c.refused_by != "", refused_by.contains(literal(" ").concat(THIS_CELL).concat(" ")))
        others_time = _OTHERS_FIRST + (jobs.c.wake_time - jobs.c.refused_since) / 2
        had_time = jobs.c.wake_time < now() - others_time
        conditions = [*self.claim_filter.conditions, or_(not_(has_refused), begun_here, had_time)]
        if self.choices:
            is_left = tuple_(*CHOICES[: self.choices]).in_(bindparam("left_to_others", expanding=True))
            conditions.append(or_(begun_here, jobs.c.bound_cell_id == THIS_CELL, not_(is_left)))
        if self.leaves_agents:
            lacks = jobs.c.preset.in_(bindparam("left_agents", expanding=True))
            conditions.append(or_(begun_here, jobs.c.bound_cell_id == THIS_CELL, not_(lacks)))
        if not self.takes_new_jobs:
            conditions.append(begun_here)
        return conditions


@lru_cache(maxsize=128)
def queries(terms: Terms) -> Queries:
    """Return the queries of a claim on these terms."""
    waiting = next_of_projects(
        terms.conditions,
        takes_over=terms.takes_over,
        lease_seconds=terms.lease_seconds,
        ageing_seconds=terms.ageing_seconds,
    )
    return Queries(_expired(terms), waiting)


def _expired(terms: Terms) -> Select[Any]:
    """Select a running job without a valid lease: our own from before a restart, or one whose lease has expired.

    It counts as running all the time, so no limit applies to it, and it comes before all jobs that wait.
    """
    own = and_(jobs.c.cell_id == THIS_CELL, jobs.c.held.is_(False))
    takeable = may_be_taken(terms.lease_seconds) if terms.takes_over else jobs.c.cell_id == THIS_CELL
    expired = and_(jobs.c.lease_until < now(), takeable, *terms.conditions)
    return _ROWS.where(IS_RUNNING, or_(own, expired)).order_by(own.desc(), jobs.c.turn, jobs.c.job_id).limit(1)
