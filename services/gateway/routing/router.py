"""Finds the cell that has an execution, a workspace or a snapshot: this one, or another through its gateway.

A call that another gateway has forwarded is always answered by this cell, and never forwarded again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import grpc
from boatyard.gateway.v1 import runtime_pb2

from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY
from services.common.rpc.channel import open_channel
from services.common.rpc.tls import ClientTls
from services.gateway.cells.store import CellStore
from services.gateway.jobs.store import JobStore
from services.gateway.routing.cell_client import CellClient, cell_unavailable
from services.gateway.routing.forwarding import forwarded_metadata
from services.gateway.routing.peer import PeerCellClient
from services.gateway.values.cells import Cell, CellKind, CellView
from services.gateway.values.principal import current_principal
from services.lifecycle.run import execution_of_snapshot

_SERVICE: Final = runtime_pb2.DESCRIPTOR.services_by_name["AgentRuntimeService"]


class CoordinatorClients(Protocol):
    """Makes clients for coordinators, which have no gateway to ask: such a client answers what this gateway knows."""

    def of_cell(self, cell: Cell) -> CellClient:
        """Return the client for such a cell."""
        ...


class CellRouter:
    """Makes a client for any cell, and keeps a channel to each other cell that was asked. `cell_router` closes them."""

    def __init__(
        self,
        local: CellClient,
        coordinators: CoordinatorClients,
        cells: CellStore,
        jobs: JobStore,
        tls: ClientTls | None = None,
    ) -> None:
        self._local = local
        self._tls = tls
        self._coordinators = coordinators
        self._cells = cells
        self._jobs = jobs
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def of_cell(self, cell_id: str) -> CellClient:
        """Return a cell's client; "" means this cell. Raises Unavailable (CELL_UNAVAILABLE) when the cell is away."""
        if cell_id in {"", self._local.cell_id} or current_principal().forwarded_by:
            return self._local
        cell = await self._cells.find(cell_id)
        if cell is not None and cell.kind is CellKind.COORDINATOR:
            return self._coordinators.of_cell(cell)
        if cell is None or not _answers(cell):
            raise cell_unavailable(cell_id, "" if cell is None else cell.host)
        return self._peer(cell)

    async def of_workspace(self, workspace_id: str) -> Sequence[CellClient]:
        """Return the client of the cell that has a workspace; if unknown, those of all cells. Raises as `of_cell`."""
        return await self._of(await self._jobs.cell_of_workspace(workspace_id))

    async def of_snapshot(self, snapshot_id: str) -> Sequence[CellClient]:
        """Return the client of the cell that has a snapshot; if unknown, those of all cells. Raises as `of_cell`."""
        return await self._of(await self._jobs.cell_of_execution(execution_of_snapshot(snapshot_id)))

    async def all_cells(self) -> Sequence[tuple[str, CellClient | None]]:
        """Return (id, client) of every cell that has node services, by id; the client is None for one that is away."""
        if current_principal().forwarded_by:
            return [(self._local.cell_id, self._local)]
        return [
            (cell.cell_id, self._local if cell.cell_id == self._local.cell_id else self._peer_or_none(cell))
            for cell in await self._cells.all()
            if cell.kind is CellKind.GATEWAY
        ]

    async def aclose(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()

    async def _of(self, cell_id: str | None) -> Sequence[CellClient]:
        if cell_id is not None:
            return [await self.of_cell(cell_id)]
        clients = []
        for name, client in await self.all_cells():
            if client is None:  # this may be the cell that has it
                raise cell_unavailable(name)
            clients.append(client)
        return clients

    def _peer_or_none(self, cell: CellView) -> CellClient | None:
        return self._peer(cell) if _answers(cell) else None

    def _peer(self, cell: CellView) -> CellClient:
        channel = self._channels.get(cell.address)
        if channel is None:
            channel = self._channels[cell.address] = open_channel(cell.address, services=[_SERVICE], tls=self._tls)
        token = (AUTHORIZATION_METADATA_KEY, f"Bearer {cell.peer_token}")
        return PeerCellClient(cell, channel, (token, *forwarded_metadata(self._local.cell_id)))


@asynccontextmanager
async def cell_router(
    local: CellClient, coordinators: CoordinatorClients, cells: CellStore, jobs: JobStore, tls: ClientTls | None
) -> AsyncIterator[CellRouter]:
    """Yield the router; close its channels at the end. Without `tls` they are plaintext, to loopback addresses only."""
    router = CellRouter(local, coordinators, cells, jobs, tls)
    try:
        yield router
    finally:
        await router.aclose()


def _answers(cell: CellView) -> bool:
    return bool(cell.address) and not cell.is_away
