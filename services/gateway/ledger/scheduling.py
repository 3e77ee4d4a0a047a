"""The queue: which of the waiting jobs a cell may take, and in which order.

Within a project the `turn` of a job decides: when it began to wait, minus `ageing` for each point of its priority. So a
point of priority is worth that much waiting, and nothing waits for ever. Among projects, the one whose next job has the
highest priority comes first; a project with nothing running gains a point for each `ageing` that it waits. After that,
the one with the fewest running jobs comes first, and then the one that has waited longest since it last had one. So a
project with a thousand jobs in the queue does not hold up the one job of another.

Jobs that have reached a limit of their project, repository or worker are skipped. Limits hold only if claims come one
after the other: see `claiming`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    String,
    Subquery,
    Table,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from services.common.db.columns import as_number, microseconds
from services.gateway.ledger.fleet import is_alive
from services.gateway.schema.catalog import projects, repositories, workers
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import IS_QUEUED, PENDING, RUNNING, jobs

DEFAULT_AGEING_SECONDS: Final = 60.0
_BOUND_PATIENCE_SECONDS: Final = 3600.0
_SECOND: Final = 1_000_000
_NO_AGEING: Final = 10 * 365 * 86400.0
"""Seconds that a point of priority is worth without ageing: longer than anything waits."""

THIS_CELL: Final = bindparam("this_cell", type_=String(63))
"""The cell that claims: statements are built once for all cells."""
_IS_UNBOUND: Final = or_(jobs.c.bound_cell_id == "", jobs.c.bound_cell_id == THIS_CELL)


def turn_of(priority: int, since: datetime, ageing_seconds: float) -> int:
    """Return a job's turn; lower is sooner. `since` is when it began, or begins, to wait. 0 means no ageing."""
    return microseconds(since) - round(priority * (ageing_seconds or _NO_AGEING) * _SECOND)


def next_of_projects(
    conditions: Iterable[ColumnElement[bool]], *, takes_over: bool, lease_seconds: float, ageing_seconds: float
) -> Select[tuple[str]]:
    """Select the next job of each project, of those that meet `conditions`, in the order in which to take them.

    With `takes_over`, jobs that were parked by a cell that is away are among them.
    """
    is_away = ~exists().where(cells.c.cell_id == jobs.c.cell_id, is_alive(lease_seconds))
    queued = (
        IS_QUEUED,
        jobs.c.wake_time <= now(),
        may_be_taken(lease_seconds) if takes_over else _IS_UNBOUND,
        or_(jobs.c.state == PENDING, jobs.c.cell_id == THIS_CELL, is_away if takes_over else false()),
        *conditions,
        *(_has_room(table, table.primary_key.columns[0]) for table in (repositories, workers)),
    )
    of_project = jobs.c.project_id == projects.c.project_id
    head = select(jobs.c.job_id).where(of_project, *queued).order_by(jobs.c.turn, jobs.c.job_id).limit(1)
    room = _has_room(projects, projects.c.project_id, of=projects.c.project_id)
    heads = select(head.scalar_subquery().label("job_id")).where(room).subquery("heads")

    since = _latest(as_number(jobs.c.create_time), _woken(), func.coalesce(_last_end(), 0))
    number = _running()
    candidates = (
        select(jobs.c.job_id, jobs.c.turn, jobs.c.priority, since.label("since"))
        .add_columns(func.coalesce(number.c.running, 0).label("running"))
        .join_from(heads, jobs, jobs.c.job_id == heads.c.job_id)
        .outerjoin(number, number.c.project_id == jobs.c.project_id)
        .subquery("candidates")
    )
    level: ColumnElement[int] = candidates.c.priority
    if ageing_seconds:
        aged = (now() - candidates.c.since) // round(ageing_seconds * _SECOND)
        level = level + case((candidates.c.running == 0, aged), else_=0)
    return select(candidates.c.job_id).order_by(
        level.desc(), candidates.c.running, candidates.c.since, candidates.c.turn, candidates.c.job_id
    )


def may_be_taken(lease_seconds: float) -> ColumnElement[bool]:
    """Return the condition that this cell may take a job: it is bound to this cell or to none, or its cell is away.

    A job that its own retry has bound, by a snapshot, can begin without that as soon as its cell is away. One that a
    person has bound, by the snapshot or result to begin from, waits for the cell much longer, and then fails.
    """
    bound = jobs.c.bound_cell_id
    is_away = ~exists().where(cells.c.cell_id == bound, is_alive(lease_seconds))
    for_a_retry = and_(jobs.c.snapshot_id != "", jobs.c.waits_for_cell.is_(False), is_away)
    return or_(_IS_UNBOUND, for_a_retry, ~_has_beaten(bound, _BOUND_PATIENCE_SECONDS))


def _has_beaten(cell_id: ColumnElement[str], seconds: float) -> ColumnElement[bool]:
    """Return the condition that a cell has beaten within so many seconds."""
    since = now() - round(seconds * _SECOND)
    return exists().where(cells.c.cell_id == cell_id, as_number(cells.c.beat_time) >= since)


def _has_room(table: Table, key: Column[Any], of: ColumnElement[Any] | None = None) -> ColumnElement[bool]:
    """Return the condition that a job's repository, worker or project may have one more running job."""
    other = jobs.alias(f"{table.name}_running")
    named = jobs.c[key.name] if of is None else of
    limited = table.alias(f"limited_{table.name}")
    full = (
        select(limited.c[key.name])
        .join_from(limited, other, other.c[key.name] == limited.c[key.name])
        .where(limited.c.max_running_jobs > 0, other.c.state == RUNNING)
        .group_by(limited.c[key.name], limited.c.max_running_jobs)
        .having(func.count() >= limited.c.max_running_jobs)
    )
    return or_(named.is_(None), named.not_in(full))


def _woken() -> ColumnElement[int]:
    """Return since when a job that waited for its time could have been taken; a parked job counts its whole age."""
    return case((jobs.c.state == PENDING, jobs.c.wake_time), else_=0)


def _last_end() -> ColumnElement[int]:
    """Return when a job of the job's project last ended. Not with max(): SQLite would read the ends of all of them."""
    ended = jobs.alias("ended")
    ends = select(as_number(ended.c.end_time)).where(
        ended.c.project_id == jobs.c.project_id, ended.c.end_time.is_not(None)
    )
    return ends.order_by(ended.c.end_time.desc()).limit(1).scalar_subquery()


def _running() -> Subquery:
    """Count the running jobs of each project that has any."""
    other = jobs.alias("other")
    running = select(other.c.project_id, func.count().label("running")).where(other.c.state == RUNNING)
    return running.group_by(other.c.project_id).subquery("running_jobs")


class _latest(FunctionElement[int]):  # noqa: N801 - it reads as SQL
    """The greatest of some numbers, none of which is NULL."""

    inherit_cache = True
    type = BigInteger()


@compiles(_latest, "postgresql")
def _latest_postgresql(element: _latest, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return f"greatest({compiler.process(element.clauses, **options)})"


@compiles(_latest, "sqlite")
def _latest_sqlite(element: _latest, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's
    return f"max({compiler.process(element.clauses, **options)})"
