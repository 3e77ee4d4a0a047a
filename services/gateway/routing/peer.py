"""Another cell's gateway, which gets the same request as this one, in the name of the same caller."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import grpc
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceStub

from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.routing.cell_client import CellUnreachable, CommitRange, EventBatch, EventKinds, cell_unavailable
from services.gateway.routing.local import LONG_SECONDS
from services.gateway.values.cells import Cell

T = TypeVar("T")

Metadata = tuple[tuple[str, str], ...]

_SILENCE_SECONDS: Final = 14.0
"""How long a stream with heartbeats, one every 10 s, may be silent: a frozen machine sends nothing at all.

This gateway's own viewers must hear from it every 15 s, and asking again costs nothing.
"""
# Any other status is the peer's own refusal, which the caller gets. With one of these it does not answer, or does not
# answer as a peer of this cell: it may have been restarted with another secret, or have another version.
_UNREACHABLE: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class PeerCellClient:
    """Implements CellClient for another cell; `metadata` is sent with every call."""

    def __init__(self, cell: Cell, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._cell = cell
        self._stub = AgentRuntimeServiceStub(channel)
        self._metadata = metadata

    @property
    def cell_id(self) -> str:
        return self._cell.cell_id

    async def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: EventKinds = ()
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield the events that the peer relays; `is_last` comes once the end is recorded in the ledger."""
        request = pb.WatchExecutionRequest(execution_id=execution_id, from_sequence=first, follow=follow, kinds=kinds)
        with self._translated_errors():
            async with streaming(self._stub.WatchExecution(request, metadata=self._metadata)) as messages:
                while True:
                    async with asyncio.timeout(_SILENCE_SECONDS):
                        message = await messages.read()
                    if not isinstance(message, pb.WatchExecutionResponse):  # gRPC's mark for the end of the stream
                        return
                    yield EventBatch(tuple(message.events), message.HasField("end"), message.next_sequence or None)

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        await self._answer(self._stub.SendMessage(request, metadata=self._metadata))

    async def resolve_permission(self, request: pb.ResolvePermissionRequest) -> pb.ResolvePermissionResponse:
        return await self._answer(self._stub.ResolvePermission(request, metadata=self._metadata))

    async def attach(
        self, requests: AsyncIterator[pb.AttachExecutionRequest]
    ) -> AsyncGenerator[pb.AttachExecutionResponse, None]:
        with self._translated_errors():
            async with streaming(self._stub.AttachExecution(requests, metadata=self._metadata)) as messages:
                async for message in messages:
                    yield message

    async def diff(self, request: pb.ReadDiffRequest, compared: CommitRange) -> AsyncGenerator[bytes, None]:  # noqa: ARG002 - the peer finds the commits itself
        with self._translated_errors():
            async with streaming(self._stub.ReadDiff(request, metadata=self._metadata)) as messages:
                async for message in messages:
                    yield message.data

    async def snapshot(self, request: pb.GetSnapshotRequest) -> pb.GetSnapshotResponse:
        return await self._answer(self._stub.GetSnapshot(request, metadata=self._metadata))

    async def list_snapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        return await self._answer(self._stub.ListSnapshots(request, metadata=self._metadata))

    async def delete_snapshot(self, request: pb.DeleteSnapshotRequest) -> None:
        await self._answer(self._stub.DeleteSnapshot(request, timeout=LONG_SECONDS, metadata=self._metadata))

    async def list_workspaces(self, request: pb.ListWorkspacesRequest) -> pb.ListWorkspacesResponse:
        return await self._answer(self._stub.ListWorkspaces(request, metadata=self._metadata))

    async def workspace_usage(self, request: pb.ListWorkspaceUsageRequest) -> pb.ListWorkspaceUsageResponse:
        return await self._answer(self._stub.ListWorkspaceUsage(request, timeout=LONG_SECONDS, metadata=self._metadata))

    async def delete_workspace(self, request: pb.DeleteWorkspaceRequest) -> None:
        await self._answer(self._stub.DeleteWorkspace(request, timeout=LONG_SECONDS, metadata=self._metadata))

    async def _answer(self, call: Awaitable[T]) -> T:
        with self._translated_errors():
            return await call

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._unreachable() from error
        except grpc.aio.AioRpcError as error:
            if error.code() not in _UNREACHABLE:
                raise service_error(error) from error
            described = service_error(error)
            is_explained = error.code() is grpc.StatusCode.UNAVAILABLE and described.reason != described.status
            raise (CellUnreachable(described) if is_explained else self._unreachable()) from error

    def _unreachable(self) -> CellUnreachable:
        return CellUnreachable(cell_unavailable(self._cell.cell_id, self._cell.host))
