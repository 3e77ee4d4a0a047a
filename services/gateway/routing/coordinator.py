"""A coordinator's machine, as far as a gateway can answer for it: from the events that it sent, and stored results."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from boatyard.gateway.v1 import runtime_pb2 as pb

from services.common.errors import FailedPrecondition, OutOfRange, Unavailable
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.watching import HEARTBEAT_SECONDS, POLL_SECONDS
from services.gateway.ledger.events import EventStore
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.routing.cell_client import CellUnreachable, CommitRange, EventBatch, EventKinds
from services.gateway.values.cells import Cell
from services.gateway.wire.events import events_from_bytes

LAST_EVENTS_SECONDS = 10.0
"""How long to wait for the last events of an execution that has ended: its machine may never send them."""


class CoordinatorCells:
    """Makes the clients for the machines of coordinators."""

    def __init__(self, jobs: JobStore, events: EventStore, notifier: JobNotifier) -> None:
        self._jobs = jobs
        self._events = events
        self._notifier = notifier

    def of_cell(self, cell: Cell) -> "CoordinatorCellClient":
        """Return the client for one of them."""
        return CoordinatorCellClient(cell, self._jobs, self._events, self._notifier)


class CoordinatorCellClient:
    """CellClient for one machine. It cannot be called, so most is refused: FAILED_PRECONDITION (ON_COORDINATOR)."""

    def __init__(self, cell: Cell, jobs: JobStore, events: EventStore, notifier: JobNotifier) -> None:
        self._cell = cell
        self._jobs = jobs
        self._events = events
        self._notifier = notifier

    @property
    def cell_id(self) -> str:
        return self._cell.cell_id

    async def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: EventKinds = ()
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield the events that the coordinator has sent, as they arrive.

        Raises OutOfRange (EVENTS_TRIMMED, EVENTS_OUT_OF_RANGE).
        """
        clock = asyncio.get_running_loop().time
        position, last_yield, ended = first, clock(), float("inf")
        try:
            job_id = (await self._jobs.execution(execution_id)).job_id
            with self._notifier.subscribe(job_id) as subscription:
                while True:
                    batch = await self._next(execution_id, position, kinds)
                    if batch is None and (await self._jobs.execution(execution_id)).state.is_final:
                        ended = min(ended, clock())
                        if clock() - ended > LAST_EVENTS_SECONDS:
                            batch = EventBatch((), is_last=True)
                    if batch is None and not follow:
                        return
                    if batch is not None or clock() - last_yield > HEARTBEAT_SECONDS:
                        last_yield = clock()
                        yield batch or EventBatch((), is_last=False)
                    if batch is None:
                        await subscription.wait(POLL_SECONDS)
                    elif batch.is_last:
                        return
                    else:
                        position, ended = batch.next_sequence or position, float("inf")
        except Unavailable as error:
            raise CellUnreachable(error) from error

    async def _next(self, execution_id: str, position: int, kinds: EventKinds) -> EventBatch | None:
        """Return what has been received from `position` on, or an empty last batch; None while neither is known."""
        log = await self._events.log(execution_id)
        if log is None:
            return None
        if position < log.first:
            raise OutOfRange(log.first, log.next, reason="EVENTS_TRIMMED")
        if position < log.next:
            data, following = await self._events.read(execution_id, position)
            return EventBatch(tuple(events_from_bytes(data, position, kinds)), is_last=False, next_sequence=following)
        if not log.is_complete:
            return None
        if position > log.next:
            raise OutOfRange(log.first, log.next, reason="EVENTS_OUT_OF_RANGE")
        return EventBatch((), is_last=True)

    async def diff(self, request: pb.ReadDiffRequest, compared: CommitRange) -> AsyncGenerator[bytes, None]:
        """Yield a diff that was small enough to be stored whole."""
        changes = (await self._jobs.execution(request.execution_id)).output.changes if request.execution_id else None
        if changes is None or changes.diff_truncated:
            raise self._refusal()
        yield changes.diff

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        raise self._refusal()

    async def resolve_permission(
        self,
        request: pb.ResolvePermissionRequest,
    ) -> pb.ResolvePermissionResponse:
        raise self._refusal()

    async def attach(
        self,
        requests: AsyncIterator[pb.AttachExecutionRequest],
    ) -> AsyncGenerator[pb.AttachExecutionResponse, None]:
        raise self._refusal()
        yield pb.AttachExecutionResponse()  # never reached; the yield makes this an async generator

    async def snapshot(self, request: pb.GetSnapshotRequest) -> pb.GetSnapshotResponse:
        raise self._refusal()

    async def list_snapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        raise self._refusal()

    async def delete_snapshot(self, request: pb.DeleteSnapshotRequest) -> None:
        raise self._refusal()

    async def list_workspaces(
        self,
        request: pb.ListWorkspacesRequest,
    ) -> pb.ListWorkspacesResponse:
        raise self._refusal()

    async def workspace_usage(
        self,
        request: pb.ListWorkspaceUsageRequest,
    ) -> pb.ListWorkspaceUsageResponse:
        raise self._refusal()

    async def delete_workspace(self, request: pb.DeleteWorkspaceRequest) -> None:
        raise self._refusal()

    def _refusal(self) -> FailedPrecondition:
        where = f"{self._cell.cell_id} on {self._cell.host}" if self._cell.host else self._cell.cell_id
        return FailedPrecondition(
            "ON_COORDINATOR",
            f"it is on the machine of coordinator {where}, which gateways cannot call: ask on that machine",
            self._cell.cell_id,
        )
