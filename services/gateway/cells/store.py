"""The cells in SQL. Each method is one transaction."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import as_number
from services.gateway.cells.model import LEASES_UNTIL_AWAY, Cell, CellKind, CellView
from services.gateway.jobs.tables import NOW, cells, jobs, now
from services.gateway.sql import insert_if_absent
from services.lifecycle.model.states import JobState

_SECOND = 1_000_000


class CellStore:
    """Knows the cells. One that has not beaten for three leases is away."""

    def __init__(self, engine: AsyncEngine, lease_seconds: float) -> None:
        self._engine = engine
        self._silence = round(LEASES_UNTIL_AWAY * lease_seconds * _SECOND)

    async def register(self, cell: Cell) -> None:
        """Write down a cell that starts, and what it is now. A pause is kept."""
        known = asdict(cell) | {"start_time": NOW, "beat_time": NOW}
        async with self._engine.begin() as connection:
            if not await insert_if_absent(connection, cells, known):
                await connection.execute(update(cells).where(cells.c.cell_id == cell.cell_id).values(known))

    async def find(self, cell_id: str) -> CellView | None:
        """Return a cell; None when there is none, or it has been forgotten."""
        async with self._engine.begin() as connection:
            row = (await connection.execute(self._views().where(cells.c.cell_id == cell_id))).first()
        return None if row is None else _view(row)

    async def all(self) -> list[CellView]:
        """Return every cell, by id."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(self._views().order_by(cells.c.cell_id))).all()
        return list(map(_view, rows))

    def _views(self) -> Select[Any]:
        running = select(func.count()).where(jobs.c.cell_id == cells.c.cell_id, jobs.c.state == JobState.RUNNING)
        silent = as_number(cells.c.beat_time) < now() - self._silence
        return select(cells, running.scalar_subquery().label("running_jobs"), silent.label("is_away"))


def _view(row: Row[Any]) -> CellView:
    return CellView(**{**row._mapping, "kind": CellKind(row.kind), "is_away": bool(row.is_away)})
