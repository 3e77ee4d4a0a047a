"""The cells in SQL. Each method is one transaction."""

from dataclasses import asdict
from typing import Any

import structlog
from sqlalchemy import Row, Select, and_, delete, func, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import as_number
from services.common.db.paging import Page
from services.common.db.retention import every_hour
from services.common.errors import FailedPrecondition, NotFound
from services.gateway.ledger.agents import agents_to_column
from services.gateway.ledger.ending import end_job
from services.gateway.ledger.fleet import (
    allowance_of_columns,
    allowance_to_columns,
    is_alive,
    troubles_of_column,
    troubles_to_column,
)
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import NOW, now
from services.gateway.schema.jobs import IS_RUNNING, jobs
from services.gateway.schema.sql import insert_if_absent
from services.gateway.values.cells import Cell, CellKind, CellState, CellView
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState

_SECOND = 1_000_000
_UNKNOWN = Condition(None)
_CELL_GONE = Failure(
    "NODE_LOST", "it could run only on the machine that has what it starts from, and that machine is gone"
)

log = structlog.get_logger()


class CellStore:
    """Reads and writes the cells. `lease_seconds` is what this gateway, and coordinators that call it, have."""

    def __init__(self, engine: AsyncEngine, lease_seconds: float) -> None:
        self._engine = engine
        self._lease_seconds = lease_seconds

    async def register(self, cell: Cell, condition: Condition = _UNKNOWN) -> None:
        """Record a cell that starts, and its condition as far as that is known already.

        A pause is kept, unless it was to last until this start.
        """
        row = asdict(cell) | allowance_to_columns(condition.allowance) | {"start_time": NOW, "beat_time": NOW}
        row |= {"troubles": troubles_to_column(condition.troubles), "lease_ms": round(self._lease_seconds * 1000)}
        row |= {"agents": agents_to_column(condition.agents)}
        pause = {"paused": and_(cells.c.paused, ~cells.c.until_start), "until_start": False}
        async with self._engine.begin() as connection:
            if not await insert_if_absent(connection, cells, row):
                await connection.execute(update(cells).where(cells.c.cell_id == cell.cell_id).values(row | pause))

    async def register_if_absent(self, cell: Cell) -> None:
        """Record a cell if it is missing, as when it was forgotten while it was suspended."""
        async with self._engine.begin() as connection:
            await insert_if_absent(connection, cells, asdict(cell) | {"start_time": NOW, "beat_time": NOW})

    async def set_condition(self, cell_id: str, condition: Condition) -> None:
        """Record the condition of a cell, if it is known; what is not known stays as it was."""
        values = {} if condition.allowance is None else allowance_to_columns(condition.allowance)
        if condition.agents is not None:
            values["agents"] = agents_to_column(condition.agents)
        values["troubles"] = troubles_to_column(condition.troubles)
        is_new = or_(*(cells.c[name].is_distinct_from(value) for name, value in values.items()))
        async with self._engine.begin() as connection:
            await connection.execute(update(cells).where(cells.c.cell_id == cell_id, is_new).values(values))

    async def find(self, cell_id: str) -> CellView | None:
        """Return a cell; None when it does not exist, or has been forgotten."""
        async with self._engine.begin() as connection:
            row = (await connection.execute(self._views().where(cells.c.cell_id == cell_id))).first()
        return None if row is None else _view(row)

    async def has_said_what_it_allows(self, cell_id: str) -> bool:
        """True for a cell that has said at its start which sandboxes it lets jobs choose."""
        async with self._engine.begin() as connection:
            said = select(cells.c.cell_id).where(cells.c.cell_id == cell_id, cells.c.allowed_tiers.is_not(None))
            return (await connection.execute(said)).first() is not None

    async def all(self) -> list[CellView]:
        """Return every cell, ordered by id."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(self._views().order_by(cells.c.cell_id))).all()
        return list(map(_view, rows))

    async def page(self, page: Page) -> tuple[list[CellView], str]:
        """Return a page of cells, ordered by id, and the next page's token."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(page.select(self._views(), [cells.c.cell_id]))).all()
        return page.cut(list(map(_view, rows)), lambda cell: (cell.cell_id,))

    async def set_paused(self, cell_id: str, *, paused: bool, until_start: bool = False) -> CellView:
        """Keep a cell from taking jobs, perhaps until its next start, or let it take them again. Raises NotFound."""
        pause = {"paused": paused, "until_start": until_start}
        async with self._engine.begin() as connection:
            await connection.execute(update(cells).where(cells.c.cell_id == cell_id).values(pause))
            row = (await connection.execute(self._views().where(cells.c.cell_id == cell_id))).first()
        if row is None:
            raise NotFound("cell", cell_id)
        return _view(row)

    async def forget(self, cell_id: str) -> None:
        """Forget a cell that is away, and end the jobs that only it could run.

        Does nothing for an unknown cell. Raises FailedPrecondition (CELL_STATE) for a cell that is not away.
        """
        async with self._engine.begin() as connection:
            await connection.execute(select(cells.c.cell_id).where(cells.c.cell_id == cell_id).with_for_update())
            row = (await connection.execute(self._views().where(cells.c.cell_id == cell_id))).first()
            if row is None:
                return
            cell = _view(row)
            if not cell.is_away:
                raise FailedPrecondition(
                    "CELL_STATE",
                    f"cell {cell_id} on {cell.host} is not away: stop it first, for as long as three leases",
                    cell_id,
                    state=cell.state,
                    allowed_states=[CellState.AWAY, CellState.AWAY_PAUSED],
                )
            bound = select(jobs).where(jobs.c.bound_cell_id == cell_id, jobs.c.state == JobState.PENDING)
            for job in (await connection.execute(bound.with_for_update())).all():
                await end_job(connection, job, Outcome(JobState.FAILED, _CELL_GONE))
            await connection.execute(delete(cells).where(cells.c.cell_id == cell_id))

    async def list_silent(self, seconds: float) -> list[str]:
        """Return the ids of cells whose last heartbeat is longer ago than `seconds`."""
        silent = as_number(cells.c.beat_time) < now() - round(seconds * _SECOND)
        async with self._engine.begin() as connection:
            return list((await connection.execute(select(cells.c.cell_id).where(silent))).scalars())

    async def run_retention(self, own_cell: Cell, after_seconds: float) -> None:
        """Forget, every hour until cancelled, the cells that have been gone for `after_seconds`.

        `own_cell` is recorded before, if it is missing.
        """

        async def forget_gone_cells() -> bool:
            await self.register_if_absent(own_cell)  # it may have been forgotten itself, while it was suspended
            for cell_id in await self.list_silent(after_seconds):
                log.warning("forgetting a cell that is gone", cell_id=cell_id)
                await self.forget(cell_id)
            return False

        await every_hour("cells", forget_gone_cells)

    def _views(self) -> Select[Any]:
        running = select(func.count()).where(jobs.c.cell_id == cells.c.cell_id, IS_RUNNING)
        hidden = {"until_start", "key_ids", "sealing_key_id", "lease_ms", "own_providers", "agents", "takes"}
        columns = [column for column in cells.c if column.name not in hidden]
        return select(
            *columns,
            running.scalar_subquery().label("running_jobs"),
            not_(is_alive(self._lease_seconds)).label("is_away"),
        )


def _view(row: Row[Any]) -> CellView:
    fields = {**row._mapping, "kind": CellKind(row.kind), "is_away": bool(row.is_away)}
    said = (fields.pop(name) for name in ("allowed_tiers", "allowed_networks", "limits"))
    allowance = allowance_of_columns(row.kind, *said)
    troubles = troubles_of_column(fields.pop("troubles"))
    return CellView(**fields, allowance=allowance, troubles=troubles)
