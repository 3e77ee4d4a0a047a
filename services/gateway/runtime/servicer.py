"""The RPCs of AgentRuntimeService: from the wire to the domain and back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceServicer
from grpc import aio

from services.common.errors import NotFound
from services.common.rpc.draining import Draining
from services.gateway import scope
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.store import JobStore, execution_key
from services.gateway.routing.cell_client import CellClient, CellUnreachable, CommitRange
from services.gateway.routing.gathering import CellPage, gather
from services.gateway.routing.router import CellRouter
from services.gateway.runtime import wire
from services.gateway.runtime.relay import ExecutionUpdate, Relay
from services.gateway.wire.lists import fitted
from services.gateway.wire.validation import Validator, required_id

Context = aio.ServicerContext[Any, Any]


class RuntimeServicer(AgentRuntimeServiceServicer):
    """Serves boatyard.gateway.v1.AgentRuntimeService."""

    def __init__(
        self, admission: Admission, store: JobStore, relay: Relay, router: CellRouter, draining: Draining
    ) -> None:
        self._admission = admission
        self._store = store
        self._relay = relay
        self._router = router
        self._draining = draining

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        view = await self._admission.admit(*wire.submission_from_proto(request))
        return pb.ExecuteResponse(execution_id=view.executions[0].execution_id, job_id=view.spec.job_id)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        view = await self._store.execution(required_id("execution_id", request.execution_id))
        return pb.GetExecutionResponse(execution=wire.execution_to_proto(view))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        filters, page = wire.list_executions_from_proto(request)
        views = await self._store.executions(filters, page)
        executions, token = fitted(views, page, wire.execution_to_proto, execution_key)
        return pb.ListExecutionsResponse(executions=executions, next_page_token=token)

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        view = await self._store.cancel_execution(required_id("execution_id", request.execution_id))
        return pb.CancelExecutionResponse(execution=wire.execution_to_proto(view))

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        execution_id, position = wire.watch_from_proto(request)

        def position_after(batch: ExecutionUpdate) -> int:
            nonlocal position
            position = batch.events.next_sequence or position
            return position

        batches = self._relay.batches(execution_id, position, follow=request.follow, kinds=request.kinds)
        async for batch in self._draining.stream(batches, start=position, position_after=position_after):
            end = None if batch.end is None else wire.execution_to_proto(batch.end)
            following = batch.events.next_sequence or position
            yield pb.WatchExecutionResponse(events=batch.events.events, end=end, next_sequence=following)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        wire.check_message(request)
        with _node_errors():
            await (await self._cell_of_begun(request.execution_id)).send_message(request)
        return pb.SendMessageResponse()

    async def ResolvePermission(
        self, request: pb.ResolvePermissionRequest, context: Context
    ) -> pb.ResolvePermissionResponse:
        wire.check_permission(request)
        with _node_errors():
            return await (await self._cell_of_begun(request.execution_id)).resolve_permission(request)

    async def AttachExecution(
        self, request_iterator: AsyncIterator[pb.AttachExecutionRequest], context: Context
    ) -> AsyncIterator[pb.AttachExecutionResponse]:
        first = await anext(aiter(request_iterator), None)
        client = await self._cell_of_begun(wire.attached_execution_from_proto(first))

        async def typed() -> AsyncIterator[pb.AttachExecutionRequest]:
            assert first is not None  # noqa: S101 - its absence was refused above
            yield first
            async for request in request_iterator:
                yield request

        with _node_errors():
            async for answer in self._draining.stream(
                client.attach(typed()), start=0, position_after=lambda latest: latest.taken_bytes
            ):
                yield answer

    async def ReadDiff(self, request: pb.ReadDiffRequest, context: Context) -> AsyncIterator[pb.ReadDiffResponse]:
        wire.check_diff_request(request)
        with _node_errors():
            client, compared = await self._compared(request)
            if compared.base_commit_id == compared.commit_id:
                return
            async with aclosing(client.diff(request, compared)) as pieces:
                async for piece in pieces:
                    yield pb.ReadDiffResponse(data=piece)

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Context) -> pb.ListWorkspacesResponse:
        request = wire.limited_to_visible(request)

        async def ask(client: CellClient, size: int, token: str) -> CellPage[pb.ListWorkspacesResponse]:
            answer = await client.list_workspaces(wire.page_request(request, size, token))
            return CellPage(answer, len(answer.workspaces), answer.next_page_token)

        page = wire.list_workspaces_from_proto(request)
        with _node_errors():
            return wire.workspaces_to_proto(await gather(self._router, page, ask))

    async def ListWorkspaceUsage(
        self, request: pb.ListWorkspaceUsageRequest, context: Context
    ) -> pb.ListWorkspaceUsageResponse:
        scope.check_all()

        async def ask(client: CellClient, size: int, token: str) -> CellPage[pb.ListWorkspaceUsageResponse]:
            answer = await client.workspace_usage(wire.page_request(request, size, token))
            return CellPage(answer, sum(len(cell.workspaces) for cell in answer.cells), answer.next_page_token)

        with Validator() as check:
            page = check.page(request, request.page_size, request.page_token)
        with _node_errors():
            return wire.usage_to_proto(await gather(self._router, page, ask))

    async def DeleteWorkspace(self, request: pb.DeleteWorkspaceRequest, context: Context) -> pb.DeleteWorkspaceResponse:
        workspace_id = required_id("workspace_id", request.workspace_id)
        await self._store.check_unused(workspace_id)
        with _node_errors():
            for client in await self._router.of_workspace(workspace_id):
                await client.delete_workspace(request)
        return pb.DeleteWorkspaceResponse()

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:

        async def ask(client: CellClient, size: int, token: str) -> CellPage[pb.ListSnapshotsResponse]:
            answer = await client.list_snapshots(wire.page_request(request, size, token))
            return CellPage(answer, len(answer.snapshots), answer.next_page_token)

        page = wire.list_snapshots_from_proto(request)
        with _node_errors():
            return wire.snapshots_to_proto(await gather(self._router, page, ask))

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:
        with _node_errors():
            _, answer = await self._snapshot(required_id("snapshot_id", request.snapshot_id))
        return answer

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        with _node_errors():
            for client in await self._router.of_snapshot(required_id("snapshot_id", request.snapshot_id)):
                await client.delete_snapshot(request)
        return pb.DeleteSnapshotResponse()

    async def _cell_of_begun(self, execution_id: str) -> CellClient:
        """Return the cell of an execution that has begun. Raises NotFound, FailedPrecondition (EXECUTION_STATE)."""
        view = await self._store.execution(execution_id)
        wire.check_begun(view)
        return await self._router.of_cell(view.cell_id)

    async def _snapshot(self, snapshot_id: str) -> tuple[CellClient, pb.GetSnapshotResponse]:
        """Return a snapshot and the cell that has it. Raises NotFound."""
        for client in await self._router.of_snapshot(snapshot_id):
            with suppress(NotFound):
                return client, await client.snapshot(pb.GetSnapshotRequest(snapshot_id=snapshot_id))
        raise NotFound("snapshot", snapshot_id)

    async def _compared(self, request: pb.ReadDiffRequest) -> tuple[CellClient, CommitRange]:
        """Return the commits that a diff compares, and the cell that has them."""
        if request.snapshot_id:
            client, answer = await self._snapshot(request.snapshot_id)
            snapshot = answer.snapshot
            return client, CommitRange(snapshot.repository_id, snapshot.base_commit_id, snapshot.commit_id)
        view = await self._store.execution(request.execution_id)
        compared = CommitRange(view.repository_id, *wire.result_commits(view))
        return await self._router.of_cell(view.cell_id), compared


@contextmanager
def _node_errors() -> Iterator[None]:
    """Leave an unreachable node to the server's layers, which report it in the same way for every RPC."""
    try:
        yield
    except CellUnreachable as unreachable:
        raise unreachable.cause from unreachable
