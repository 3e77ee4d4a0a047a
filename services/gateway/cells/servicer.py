"""The RPCs of AdminService: they translate between messages and the stores."""

from typing import Any

from boatyard.gateway.v1 import admin_pb2 as pb
from boatyard.gateway.v1.admin_pb2_grpc import AdminServiceServicer
from grpc import aio

from services.gateway import scope
from services.gateway.cells import wire
from services.gateway.cells.state import StateStore
from services.gateway.cells.store import CellStore
from services.gateway.keys.store import KeyStore
from services.gateway.values.cells import Cell
from services.gateway.wire.requests import page_from_proto

Context = aio.ServicerContext[Any, Any]


class AdminServicer(AdminServiceServicer):
    """Serves boatyard.gateway.v1.AdminService, on the cell `own_cell`."""

    def __init__(self, own_cell: Cell, cells: CellStore, state: StateStore, keys: KeyStore) -> None:
        self._own_cell = own_cell
        self._cells = cells
        self._state = state
        self._keys = keys

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        scope.check_all()
        return wire.status_to_proto(
            self._own_cell.version, self._own_cell.cell_id, await self._cells.all(), await self._state.queue()
        )

    async def ListCells(self, request: pb.ListCellsRequest, context: Context) -> pb.ListCellsResponse:
        scope.check_all()
        cells, token = await self._cells.page(page_from_proto(request))
        return pb.ListCellsResponse(cells=map(wire.cell_to_proto, cells), next_page_token=token)

    async def PauseCell(self, request: pb.PauseCellRequest, context: Context) -> pb.PauseCellResponse:
        scope.check_all()
        cell = await self._cells.set_paused(request.cell_id, paused=True, until_start=request.until_start)
        return pb.PauseCellResponse(cell=wire.cell_to_proto(cell))

    async def ResumeCell(self, request: pb.ResumeCellRequest, context: Context) -> pb.ResumeCellResponse:
        scope.check_all()
        cell = await self._cells.set_paused(request.cell_id, paused=False)
        return pb.ResumeCellResponse(cell=wire.cell_to_proto(cell))

    async def ForgetCell(self, request: pb.ForgetCellRequest, context: Context) -> pb.ForgetCellResponse:
        scope.check_all()
        await self._cells.forget(request.cell_id)
        return pb.ForgetCellResponse()

    async def GetKeys(self, request: pb.GetKeysRequest, context: Context) -> pb.GetKeysResponse:
        scope.check_all()
        return pb.GetKeysResponse(keys=wire.keys_to_proto(await self._keys.view()))

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Context) -> pb.RotateKeysResponse:
        scope.check_all()
        return pb.RotateKeysResponse(keys=wire.keys_to_proto(await self._keys.begin_rotation()))

    async def CheckDatabase(self, request: pb.CheckDatabaseRequest, context: Context) -> pb.CheckDatabaseResponse:
        scope.check_all()
        return wire.database_to_proto(await self._state.database())
