"""Says what jobs that are PENDING wait for."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.limits import Limits
from services.common.db.columns import from_microseconds
from services.gateway.ledger.agents import agents_of_column, lack
from services.gateway.ledger.fleet import allowance_of_columns, is_alive, troubles_of_column
from services.gateway.ledger.takes import takes_of_column
from services.gateway.schema.catalog import projects, repositories, workers
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import IS_RUNNING, jobs
from services.gateway.values.jobs import Waiting, WaitsFor
from services.lifecycle.model.states import JobState
from services.sandbox.spec import Network, Tier

_LIMITS: Final = (
    (WaitsFor.WORKER_LIMIT, "worker", workers),
    (WaitsFor.REPOSITORY_LIMIT, "repository", repositories),
    (WaitsFor.PROJECT_LIMIT, "project", projects),
)
_MAX_RUNNING_TOLD: Final = 20
_MAX_CELLS_TOLD: Final = 5

_RUNNING_THERE: Final = select(func.count()).where(jobs.c.cell_id == cells.c.cell_id, IS_RUNNING)
_CELLS: Final[Select[Any]] = select(
    *(column for column in cells.c if column.name not in {"key_ids", "sealing_key_id"}),
    _RUNNING_THERE.scalar_subquery().label("running_jobs"),
    is_alive().label("alive"),
).order_by(cells.c.cell_id)


async def waits_of(connection: AsyncConnection, rows: Collection[Row[Any]]) -> Mapping[str, Waiting]:
    """Return what jobs wait for, of their rows; nothing for those that have begun, or that a cell is about to take.

    The number of queries does not depend on how many jobs there are.
    """
    pending = [row for row in rows if row.state == JobState.PENDING]
    if not pending:
        return {}
    at = (await connection.execute(select(func.max(now())))).scalar_one()
    fleet = (await connection.execute(_CELLS)).all()
    reached = [await _limits_reached(connection, *limit, pending) for limit in _LIMITS]

    def wait_of(job: Row[Any]) -> Waiting | None:
        if job.wake_time > at and job.outage_provider is not None:
            return _wait_for_model(job)
        if job.wake_time > at:
            kind = WaitsFor.RETRY if job.attempt > 1 else WaitsFor.NOT_BEFORE
            return Waiting(kind, f"not before {from_microseconds(job.wake_time):%Y-%m-%d %H:%M:%S} UTC")
        if job.bound_cell_id:
            return _wait_for_cell(job.bound_cell_id, fleet)
        return next((limits[job.job_id] for limits in reached if job.job_id in limits), None) or _place(job, fleet)

    waits = {job.job_id: wait_of(job) for job in pending}
    return {job_id: wait for job_id, wait in waits.items() if wait is not None}


async def _limits_reached(
    connection: AsyncConnection, kind: WaitsFor, of: str, table: Table, pending: Sequence[Row[Any]]
) -> dict[str, Waiting]:
    """Return, by job, the limits of running jobs that keep jobs from their turn, by which `scheduling` skips them."""
    (key,) = table.primary_key.columns
    named = {getattr(job, key.name) for job in pending} - {None, ""}
    if not named:
        return {}
    running = (
        select(key, table.c.max_running_jobs, jobs.c.job_id)
        .join_from(table, jobs, jobs.c[key.name] == key)
        .where(key.in_(named), table.c.max_running_jobs > 0, IS_RUNNING)
        .order_by(jobs.c.start_time, jobs.c.job_id)
    )
    found: dict[str, list[str]] = defaultdict(list)
    most: dict[str, int] = {}
    for id_, limit, job_id in (await connection.execute(running)).all():
        found[id_].append(job_id)
        most[id_] = limit
    waits = {
        id_: Waiting(kind, _limit_text(of, id_, most[id_], job_ids), running_job_ids=tuple(job_ids[:_MAX_RUNNING_TOLD]))
        for id_, job_ids in found.items()
        if len(job_ids) >= most[id_]
    }
    return {job.job_id: waits[id_] for job in pending if (id_ := getattr(job, key.name)) in waits}


def _limit_text(of: str, id_: str, most: int, job_ids: Sequence[str]) -> str:
    text = f"{of} {id_} runs as many jobs at once as it may: {most}, by its --max-running ({', '.join(job_ids[:3])}"
    return f"{text} and {len(job_ids) - 3} more)" if len(job_ids) > 3 else f"{text})"


def _wait_for_model(job: Row[Any]) -> Waiting:
    provider = f"model provider {job.outage_provider}" if job.outage_provider else "the model's provider"
    at = f"{from_microseconds(job.wake_time):%Y-%m-%d %H:%M:%S} UTC"
    return Waiting(WaitsFor.MODEL_UNAVAILABLE, f"{provider} does not answer, and is asked again at {at}")


def _wait_for_cell(cell_id: str, fleet: Sequence[Row[Any]]) -> Waiting | None:
    """Return the wait for the one cell that may take a job; None when it has room."""
    why = next((_absence(cell) for cell in fleet if cell.cell_id == cell_id), "is not known any more")
    text = f"cell {cell_id}, which alone has what the job starts from, {why}"
    return Waiting(WaitsFor.CELL, text, cell_id=cell_id) if why else None


def _place(job: Row[Any], fleet: Sequence[Row[Any]]) -> Waiting | None:
    """Return the wait for a place on any cell; None when there is one."""
    reasons = [(cell.cell_id, _absence(cell) or next(_refusals(job, cell), "")) for cell in fleet]
    if not all(why for _, why in reasons):
        return None
    each = "; ".join(f"{cell_id} {why}" for cell_id, why in reasons[:_MAX_CELLS_TOLD])
    return Waiting(WaitsFor.NO_PLACE, f"no cell has a place: {each or 'there is none'}")


def _absence(cell: Row[Any]) -> str:
    """Return why a cell takes no job now, as the end of a sentence; empty when it takes one."""
    if not cell.alive:
        return "is away"
    if cell.paused:
        return "is paused"
    if troubles := troubles_of_column(cell.troubles):
        return f"is not ready ({troubles[0].reason}: {troubles[0].message})"
    if not cell.capacity:
        return "takes none, by its settings"
    return f"runs {cell.running_jobs} of {cell.capacity} jobs" if cell.running_jobs >= cell.capacity else ""


def _refusals(job: Row[Any], cell: Row[Any]) -> Iterator[str]:
    """Yield why a cell leaves a job to others: it takes none such, lacks its agent, or does not allow its choices."""
    yield from takes_of_column(cell.takes).refusals(job.project_id, job.kind, job.engine)
    if why := lack(agents_of_column(cell.agents), job.preset):
        yield f"cannot start the agent {job.preset} ({why})"
    allowed = allowance_of_columns(cell.kind, cell.allowed_tiers, cell.allowed_networks, cell.limits)
    if allowed is None or job.sandbox_tier not in set(Tier) or job.network not in set(Network):
        return
    if not allowed.allows(Tier(job.sandbox_tier), Network(job.network), Limits.recorded(job.limits)):
        yield "does not allow what the job asks for"
