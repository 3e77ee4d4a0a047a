"""Assembles AgentRuntimeService: this cell's servicer, stand-ins for cells that cannot be called, and their routing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from boatyard.gateway.v1 import admin_pb2, runtime_pb2
from boatyard.gateway.v1.runtime_pb2_grpc import add_AgentRuntimeServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import FailedPrecondition, NotFound
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration
from services.common.rpc.tls import ClientTls
from services.gateway.cells.store import CellStore
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.servicer import Context, IsGone
from services.gateway.jobs.store import JobStore
from services.gateway.ledger.events import EventStore
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.routing.owners import OwnerFinder
from services.gateway.routing.peers import NO_ANSWER, Peers
from services.gateway.routing.router import OnAnotherCell, Router
from services.gateway.routing.wire import rpcs_of
from services.gateway.runtime import wire
from services.gateway.runtime.event_sources import NodeEvents, ReceivedEvents
from services.gateway.runtime.relay import Relay
from services.gateway.runtime.servicer import RuntimeServicer
from services.gateway.runtime.stand_ins import AwayStandIn, CoordinatorStandIn
from services.gateway.runtime.workspace_git import WorkspaceGit
from services.gateway.values.cells import CellKind
from services.gateway.values.jobs import ExecutionView
from services.lifecycle.nodes import Nodes

_SERVICE = runtime_pb2.DESCRIPTOR.services_by_name["AgentRuntimeService"]
_ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]


@asynccontextmanager
async def runtime_registration(
    engine: AsyncEngine,
    cell_id: str,
    nodes: Nodes,
    *,
    cells: CellStore,
    jobs: JobStore,
    admission: Admission,
    notifier: JobNotifier,
    draining: Draining,
    tls: ClientTls | None,
    administration: Registration,
) -> AsyncIterator[tuple[Sequence[Registration], IsGone]]:
    """Yield the service, that of `administration` with its calls routed too, and what knows of lost snapshots.

    That one says whether all cells lack a snapshot. Closes the channels to other cells at the end. Without `tls` these
    only go to loopback.
    """

    def check_is_here(view: ExecutionView) -> None:
        if view.cell_id not in {"", cell_id}:
            raise OnAnotherCell

    received = Relay(jobs, notifier, ReceivedEvents(jobs, EventStore(engine), notifier))
    stand_ins = {
        CellKind.COORDINATOR: CoordinatorStandIn(jobs, received, draining),
        CellKind.GATEWAY: AwayStandIn(jobs),
    }
    relay = Relay(jobs, notifier, NodeEvents(nodes.execution), check_is_here)
    workspace_git = WorkspaceGit(engine, nodes, Retries(engine, notifier), cell_id)
    servicer = RuntimeServicer(
        admission, jobs, relay, nodes, cell_id=cell_id, draining=draining, workspace_git=workspace_git
    )
    peers = Peers(cell_id, [_SERVICE, _ADMIN], draining, tls)
    router = Router(cell_id, cells, OwnerFinder(jobs, cells), peers, stand_ins)
    routed = router.routed(servicer, rpcs_of(_SERVICE))

    async def is_gone(snapshot_id: str, context: Context) -> bool:
        try:
            await routed.GetSnapshot(runtime_pb2.GetSnapshotRequest(snapshot_id=snapshot_id), context)
        except NotFound:
            return True
        except (FailedPrecondition, *NO_ANSWER):  # on a coordinator, or a cell that is away: its job finds out
            return False
        return False

    add = add_AgentRuntimeServiceServicer_to_server
    try:
        registration = Registration(_SERVICE.full_name, add, routed, wire.CHECKS)
        administrator = router.routed(administration.servicer, rpcs_of(_ADMIN))
        yield [registration, replace(administration, servicer=administrator)], is_gone
    finally:
        await peers.aclose()
