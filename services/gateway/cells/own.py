"""What this gateway knows of its own cell, and no other gateway does: it holds where no other cell could take a job."""

import time
from collections.abc import Collection
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent.images import ContainerImages
from services.common.db.engine import reading
from services.common.errors import FailedPrecondition
from services.gateway.cells.store import CellStore
from services.gateway.ledger.fleet import Member
from services.gateway.schema.catalog import repositories
from services.gateway.schema.cells import cells
from services.gateway.values.cells import Cell
from services.lifecycle.model.condition import Condition
from services.lifecycle.nodes import Nodes
from services.lifecycle.nodes.remotes import remote_refusal

_URL: Final = select(repositories.c.url).where(repositories.c.repository_id == bindparam("repository_id"))
_CELLS: Final = select(cells.c.cell_id)
# A repository that jobs are submitted for one after another is asked about once in a while.
_ADMITTED_SECONDS: Final = 30.0


class OwnCell:
    """Remembers what the cell's node has said last, and asks it."""

    def __init__(self, engine: AsyncEngine, store: CellStore, cell: Cell, nodes: Nodes) -> None:
        self._engine = engine
        self._store = store
        self._cell = cell
        self._nodes = nodes
        self._images: ContainerImages | None = None
        self._admitted: dict[str, float] = {}

    async def record(self, condition: Condition) -> None:
        """Remember the condition of the node, and record what others shall know of it."""
        self._images = condition.images or self._images
        await self._store.set_condition(self._cell.cell_id, condition)

    def images(self, fleet: Collection[Member]) -> ContainerImages | None:
        """Return what containers may be made from on all cells; None when that is not known: there are others."""
        return self._images if self._takes_all({cell.cell_id for cell in fleet}) else None

    async def remote_refusal(self, repository_id: str) -> FailedPrecondition | None:
        """Return why no cell may use a repository's URL; None when nothing is known against it.

        Whoever may not see the repository must not be told.
        """
        now = time.monotonic()
        if not repository_id or self._admitted.get(repository_id, 0.0) > now:
            return None
        async with reading(self._engine) as connection:
            url = (await connection.execute(_URL, {"repository_id": repository_id})).scalar_one_or_none()
            fleet = set((await connection.execute(_CELLS)).scalars())
        if url is None or not self._takes_all(fleet):
            return None
        if (refusal := await remote_refusal(self._nodes, repository_id, url)) is None:
            left = {other: until for other, until in self._admitted.items() if until > now}
            self._admitted = left | {repository_id: now + _ADMITTED_SECONDS}
        return refusal

    def _takes_all(self, cell_ids: Collection[str]) -> bool:
        """True when no other cell could take a job; where this one takes none, another one will come for them."""
        return self._cell.capacity > 0 and set(cell_ids) == {self._cell.cell_id}
