"""Says what a job that is PENDING waits for, beside its turn."""

from typing import Any, Final

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import from_microseconds
from services.gateway.ledger.fleet import is_alive, troubles_of_column
from services.gateway.schema.catalog import projects, repositories, workers
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import RUNNING, jobs
from services.gateway.values.jobs import Waiting, WaitsFor
from services.lifecycle.model.states import JobState

_LIMITED: Final = {"project": projects, "repository": repositories, "worker": workers}
_CELLS: Final = select(
    cells.c.cell_id,
    cells.c.host,
    cells.c.paused,
    cells.c.troubles,
    cells.c.capacity,
    is_alive().label("alive"),
).order_by(cells.c.cell_id)


async def waiting_of(connection: AsyncConnection, job: Row[Any]) -> Waiting | None:
    """Return what a job's row waits for; None when it has begun, or only waits until it is its turn."""
    if job.state != JobState.PENDING:
        return None
    if job.wake_time > (await connection.execute(select(func.max(now())))).scalar_one():
        kind = WaitsFor.RETRY if job.attempt > 1 else WaitsFor.START_TIME
        return Waiting(kind, "", f"not before {from_microseconds(job.wake_time):%Y-%m-%d %H:%M:%S} UTC")
    fleet = (await connection.execute(_CELLS)).all()
    if job.bound_cell_id:
        why = next((_absence(cell) for cell in fleet if cell.cell_id == job.bound_cell_id), "is not known any more")
        text = f"cell {job.bound_cell_id}, which alone has what the job starts from, {why}"
        return Waiting(WaitsFor.CELL, job.bound_cell_id, text) if why else None
    absences = [(cell.cell_id, _absence(cell)) for cell in fleet]
    if all(why for _, why in absences):
        each = "; ".join(f"{cell_id} {why}" for cell_id, why in absences[:5])
        return Waiting(WaitsFor.ANY_CELL, "", f"no cell takes jobs: {each or 'there is none'}")
    return await _limit(connection, job)


async def _limit(connection: AsyncConnection, job: Row[Any]) -> Waiting | None:
    """Return the limit of running jobs that keeps a job from its turn, by which `scheduling` skips it."""
    for of, table in _LIMITED.items():
        (key,) = table.primary_key.columns
        running = select(func.count()).where(jobs.c[key.name] == key, jobs.c.state == RUNNING).scalar_subquery()
        most = table.c.max_running_jobs
        reached = select(key, most).where(key == getattr(job, key.name), most > 0, running >= most)
        if found := (await connection.execute(reached)).first():
            id_, number = found
            text = f"{of} {id_} runs as many jobs at once as it may: {number}, by its --max-running"
            return Waiting(WaitsFor.LIMIT, "", text)
    return None


def _absence(cell: Row[Any]) -> str:
    """Return why a cell takes no new jobs, as the end of a sentence; empty when it takes them."""
    if not cell.alive:
        return "is away"
    if cell.paused:
        return "is paused"
    if troubles := troubles_of_column(cell.troubles):
        return f"is not ready ({troubles[0].reason}: {troubles[0].message})"
    return "" if cell.capacity else "takes none, by its settings"
