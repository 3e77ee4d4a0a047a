"""Finds the cell that has what a request names."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from services.common.errors import NotFound
from services.common.ids import is_id
from services.gateway.cells.store import CellStore
from services.gateway.jobs.store import JobStore
from services.lifecycle.model.ids import execution_of_snapshot

HERE = ""
"""In place of a cell's id: this cell, as for what has not begun anywhere, or does not exist."""


class OwnerFinder:
    """Knows, for each field that `cell_of` may name, how to find the cell."""

    def __init__(self, jobs: JobStore, cells: CellStore) -> None:
        async def of_execution(execution_id: str) -> str:
            return await jobs.cell_of_execution(execution_id) or HERE

        async def of_snapshot(snapshot_id: str) -> str | None:
            return await jobs.cell_of_execution(execution_of_snapshot(snapshot_id))

        async def itself(cell_id: str) -> str:
            if await cells.find(cell_id) is None:
                raise NotFound("cell", cell_id)
            return cell_id

        self.finders: Mapping[str, Callable[[str], Awaitable[str | None]]] = {
            "execution_id": of_execution,
            "workspace_id": jobs.cell_of_workspace,
            "snapshot_id": of_snapshot,
            "cell_id": itself,
        }

    async def cell_of(self, request: Any, fields: Sequence[str]) -> str | None:
        """Return the id of the cell that has what the first of `fields` that is set names; None if any may have it."""
        for field in fields:
            if named := getattr(request, field, ""):
                # The RPC itself refuses an id that is not well-formed.
                return await self.finders[field](named) if is_id(named) else HERE
        return HERE
