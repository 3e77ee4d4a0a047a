"""The RPCs of AdminService: they translate between messages and the stores."""

from signal import Signals
from typing import Any

from boatyard.gateway.v1 import admin_pb2 as pb
from boatyard.gateway.v1.admin_pb2_grpc import AdminServiceServicer
from grpc import aio

from services.common.errors import FailedPrecondition
from services.common.supervision import END_AGENTS_SIGNAL, RESTART_SIGNAL, STOP_SIGNAL, Supervisor
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

    def __init__(
        self, own_cell: Cell, cells: CellStore, state: StateStore, keys: KeyStore, supervisor: Supervisor
    ) -> None:
        self._own_cell = own_cell
        self._cells = cells
        self._state = state
        self._keys = keys
        self._supervisor = supervisor

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
        cell = await self._cells.set_paused(self._named(request), paused=True, until_start=request.until_start)
        return pb.PauseCellResponse(cell=wire.cell_to_proto(cell))

    async def ResumeCell(self, request: pb.ResumeCellRequest, context: Context) -> pb.ResumeCellResponse:
        scope.check_all()
        cell = await self._cells.set_paused(self._named(request), paused=False)
        return pb.ResumeCellResponse(cell=wire.cell_to_proto(cell))

    async def StopCell(self, request: pb.StopCellRequest, context: Context) -> pb.StopCellResponse:
        scope.check_all()
        self._tell(END_AGENTS_SIGNAL if request.end_agents else STOP_SIGNAL)
        return pb.StopCellResponse(cell_id=self._own_cell.cell_id)

    async def RestartCell(self, request: pb.RestartCellRequest, context: Context) -> pb.RestartCellResponse:
        scope.check_all()
        self._tell(RESTART_SIGNAL)
        return pb.RestartCellResponse(cell_id=self._own_cell.cell_id)

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

    def _named(self, request: pb.PauseCellRequest | pb.ResumeCellRequest) -> str:
        """Return the cell that a request is about: this one, unless it names another."""
        return request.cell_id or self._own_cell.cell_id

    def _tell(self, command: Signals) -> None:
        """Give this cell's supervisor a command; whoever routes calls has found that it is for this cell."""
        if not self._supervisor.tell(command):
            raise FailedPrecondition(
                "NO_SUPERVISOR",
                "nothing supervises this gateway: `boatyard up` would; stop its services where they run",
                self._own_cell.cell_id,
            )
