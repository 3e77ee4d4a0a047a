"""The RPCs of AgentRuntimeService: from the wire to the domain and back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from boatyard.execution.v1 import execution_pb2
from boatyard.gateway.v1 import runtime_pb2 as pb
from boatyard.gateway.v1.runtime_pb2_grpc import AgentRuntimeServiceServicer
from grpc import aio

from services.common.logs import current_caller
from services.common.rpc.draining import Draining
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.store import JobStore, execution_key
from services.gateway.jobs.wire import fitted
from services.gateway.runtime import wire
from services.gateway.runtime.clients import NodeAway, NodeClients
from services.gateway.runtime.relay import Batch, Relay

Context = aio.ServicerContext[Any, Any]


class RuntimeServicer(AgentRuntimeServiceServicer):
    """Serves boatyard.gateway.v1.AgentRuntimeService."""

    def __init__(
        self, admission: Admission, store: JobStore, relay: Relay, nodes: NodeClients, draining: Draining
    ) -> None:
        self._admission = admission
        self._store = store
        self._relay = relay
        self._nodes = nodes
        self._draining = draining

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        """See the contract."""
        view = await self._admission.admit(*wire.work(request))
        return pb.ExecuteResponse(execution_id=view.executions[0].execution_id, job_id=view.order.job_id)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """See the contract."""
        view = await self._store.execution(wire.execution_id(request.execution_id))
        return pb.GetExecutionResponse(execution=wire.execution(view))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """See the contract."""
        which, page = wire.wanted(request)
        views = await self._store.executions(which, page)
        executions, token = fitted(views, page, wire.execution, execution_key)
        return pb.ListExecutionsResponse(executions=executions, next_page_token=token)

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        """See the contract."""
        view = await self._store.cancel_execution(wire.execution_id(request.execution_id))
        return pb.CancelExecutionResponse(execution=wire.execution(view))

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        """See the contract."""
        execution_id, position = wire.watch(request)

        def position_after(batch: Batch) -> int:
            nonlocal position
            position = batch.events.next_sequence or position
            return position

        batches = self._relay.batches(execution_id, position, follow=request.follow, kinds=request.kinds)
        async for batch in self._draining.stream(batches, start=position, position_after=position_after):
            end = None if batch.end is None else wire.execution(batch.end)
            following = batch.events.next_sequence or position
            yield pb.WatchExecutionResponse(events=batch.events.events, end=end, next_sequence=following)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        """See the contract."""
        wire.check_message(request)
        wire.check_begun(await self._store.execution(request.execution_id))
        with _node_errors():
            await self._nodes.send_message(request)
        return pb.SendMessageResponse()

    async def ResolvePermission(
        self, request: pb.ResolvePermissionRequest, context: Context
    ) -> pb.ResolvePermissionResponse:
        """See the contract."""
        wire.check_permission(request)
        wire.check_begun(await self._store.execution(request.execution_id))
        with _node_errors():
            return pb.ResolvePermissionResponse(answer=await self._nodes.resolve_permission(request, current_caller()))

    async def AttachExecution(
        self, request_iterator: AsyncIterator[pb.AttachExecutionRequest], context: Context
    ) -> AsyncIterator[pb.AttachExecutionResponse]:
        """See the contract."""
        first = await anext(aiter(request_iterator), None)
        wire.check_begun(await self._store.execution(wire.attaching(first)))

        async def typed() -> AsyncIterator[execution_pb2.AttachExecutionRequest]:
            assert first is not None  # noqa: S101 - `attaching` has refused it
            yield wire.typed(first)
            async for request in request_iterator:
                yield wire.typed(request)

        answers = self._nodes.attach(typed())
        with _node_errors():
            async for answer in self._draining.stream(
                answers, start=0, position_after=lambda latest: latest.taken_bytes
            ):
                yield pb.AttachExecutionResponse(taken_bytes=answer.taken_bytes, ended=answer.HasField("end"))

    async def ReadDiff(self, request: pb.ReadDiffRequest, context: Context) -> AsyncIterator[pb.ReadDiffResponse]:
        """See the contract."""
        wire.check_diff_wanted(request)
        with _node_errors():
            repository_id, base_commit_id, commit_id = await self._compared(request)
            if base_commit_id == commit_id:
                return
            async with aclosing(self._nodes.diff(repository_id, base_commit_id, commit_id)) as pieces:
                async for piece in pieces:
                    yield pb.ReadDiffResponse(data=piece)

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Context) -> pb.ListWorkspacesResponse:
        """See the contract."""
        wire.check_workspaces_wanted(request)
        with _node_errors():
            return await self._nodes.list_workspaces(request)

    async def UsageOfWorkspaces(
        self, request: pb.UsageOfWorkspacesRequest, context: Context
    ) -> pb.UsageOfWorkspacesResponse:
        """See the contract."""
        wire.check_page(request.page_size)
        with _node_errors():
            return await self._nodes.workspace_usage(request)

    async def DeleteWorkspace(self, request: pb.DeleteWorkspaceRequest, context: Context) -> pb.DeleteWorkspaceResponse:
        """See the contract."""
        workspace_id = wire.workspace_id(request.workspace_id)
        await self._store.check_unused(workspace_id)
        with _node_errors():
            await self._nodes.delete_workspace(workspace_id)
        return pb.DeleteWorkspaceResponse()

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        """See the contract."""
        wire.check_snapshots_wanted(request)
        with _node_errors():
            return await self._nodes.list_snapshots(request)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:
        """See the contract."""
        with _node_errors():
            return pb.GetSnapshotResponse(snapshot=await self._nodes.snapshot(wire.snapshot_id(request.snapshot_id)))

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        """See the contract."""
        with _node_errors():
            await self._nodes.delete_snapshot(wire.snapshot_id(request.snapshot_id))
        return pb.DeleteSnapshotResponse()

    async def _compared(self, request: pb.ReadDiffRequest) -> tuple[str, str, str]:
        """Return the repository, and the commits from which and to which a diff is wanted."""
        if request.snapshot_id:
            snapshot = await self._nodes.snapshot(request.snapshot_id)
            return snapshot.repository_id, snapshot.base_commit_id, snapshot.commit_id
        view = await self._store.execution(request.execution_id)
        return (view.repository_id, *wire.result_of(view))


@contextmanager
def _node_errors() -> Iterator[None]:
    """Leave a node that is away to the server's layers, which tell it the same way for every RPC."""
    try:
        yield
    except NodeAway as away:
        raise away.cause from away
