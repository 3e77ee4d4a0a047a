"""Finds who has an execution, a workspace or a snapshot: this cell, or the gateway of another.

A call that another gateway has passed on is answered here, whoever has what it asks for: it is passed on no further.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import grpc
from boatyard.gateway.v1 import runtime_pb2

from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY
from services.common.rpc.channel import open_channel
from services.common.rpc.tls import ClientTls
from services.gateway.auth.current import current_access
from services.gateway.auth.forwarding import forwarded_metadata
from services.gateway.cell_unavailable import cell_unavailable
from services.gateway.cells.model import Cell, CellKind, CellView
from services.gateway.cells.store import CellStore
from services.gateway.jobs.store import JobStore
from services.gateway.runtime.elsewhere import PeerClients
from services.gateway.runtime.place import Place
from services.lifecycle.run import execution_of_snapshot

_SERVICE: Final = runtime_pb2.DESCRIPTOR.services_by_name["AgentRuntimeService"]


class Coordinators(Protocol):
    """Answers for machines whose gateway nobody can ask, as far as that can be done."""

    def of_cell(self, cell: Cell) -> Place:
        """Return what is known of such a cell."""
        ...


class Places:
    """Knows this cell and the way to all others. Made by `places`, which ends the ways."""

    def __init__(
        self, here: Place, coordinators: Coordinators, cells: CellStore, jobs: JobStore, tls: ClientTls | None = None
    ) -> None:
        self._here = here
        self._tls = tls
        self._coordinators = coordinators
        self._cells = cells
        self._jobs = jobs
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def of_cell(self, cell_id: str) -> Place:
        """Return a cell; of none ("") it is this one. Raises Unavailable (CELL_UNAVAILABLE) for one that is away."""
        if cell_id in {"", self._here.cell_id} or current_access().forwarded_by:
            return self._here
        cell = await self._cells.find(cell_id)
        if cell is not None and cell.kind is CellKind.COORDINATOR:
            return self._coordinators.of_cell(cell)
        if cell is None or not _answers(cell):
            raise cell_unavailable(cell_id, "" if cell is None else cell.host)
        return self._peer(cell)

    async def of_workspace(self, workspace_id: str) -> Sequence[Place]:
        """Return the cell that a workspace is on; where that is not known, all. Raises as `of_cell`."""
        return await self._of(await self._jobs.cell_of_workspace(workspace_id))

    async def of_snapshot(self, snapshot_id: str) -> Sequence[Place]:
        """Return the cell that a snapshot is on; where that is not known, all. Raises as `of_cell`."""
        return await self._of(await self._jobs.cell_of_execution(execution_of_snapshot(snapshot_id)))

    async def everywhere(self) -> Sequence[tuple[str, Place | None]]:
        """Return every cell with node services by its id, in order; None for one that is away."""
        if current_access().forwarded_by:
            return [(self._here.cell_id, self._here)]
        return [
            (cell.cell_id, self._here if cell.cell_id == self._here.cell_id else self._peer_if_here(cell))
            for cell in await self._cells.all()
            if cell.kind is CellKind.GATEWAY
        ]

    async def aclose(self) -> None:
        """End the ways."""
        for channel in self._channels.values():
            await channel.close()

    async def _of(self, cell_id: str | None) -> Sequence[Place]:
        if cell_id is not None:
            return [await self.of_cell(cell_id)]
        found = []
        for name, place in await self.everywhere():
            if place is None:  # it may be the one
                raise cell_unavailable(name)
            found.append(place)
        return found

    def _peer_if_here(self, cell: CellView) -> Place | None:
        return self._peer(cell) if _answers(cell) else None

    def _peer(self, cell: CellView) -> Place:
        channel = self._channels.get(cell.address)
        if channel is None:
            channel = self._channels[cell.address] = open_channel(cell.address, services=[_SERVICE], tls=self._tls)
        token = (AUTHORIZATION_METADATA_KEY, f"Bearer {cell.peer_token}")
        return PeerClients(cell, channel, (token, *forwarded_metadata(self._here.cell_id)))


@asynccontextmanager
async def places(
    here: Place, coordinators: Coordinators, cells: CellStore, jobs: JobStore, tls: ClientTls | None
) -> AsyncIterator[Places]:
    """Give the ways to all cells, and end them. Without `tls` they are in the clear: of loopback addresses alone."""
    found = Places(here, coordinators, cells, jobs, tls)
    try:
        yield found
    finally:
        await found.aclose()


def _answers(cell: CellView) -> bool:
    return bool(cell.address) and not cell.is_away
