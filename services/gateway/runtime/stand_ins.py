"""What a gateway answers, from the database, in place of a cell that it cannot call; see `routing.router.Router`."""

from collections.abc import AsyncIterator
from typing import Any

from boatyard.gateway.v1 import runtime_pb2 as pb
from grpc import aio

from services.common.rpc.draining import Draining
from services.gateway.jobs.store import JobStore
from services.gateway.routing.router import NotRecorded
from services.gateway.runtime import wire
from services.gateway.runtime.relay import NODE_LOST, ExecutionUpdate, Relay
from services.gateway.wire.output import ARTIFACT

Context = aio.ServicerContext[Any, Any]


class CoordinatorStandIn:
    """Answers for a coordinator's machine: from the events that it sent, and stored results."""

    def __init__(self, store: JobStore, relay: Relay, draining: Draining) -> None:
        self._store = store
        self._relay = relay
        self._draining = draining

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        first = max(1, request.from_sequence)
        updates = self._relay.updates(request.execution_id, first, follow=request.follow, kinds=request.kinds)
        async for update in self._draining.stream(updates, start=first, position_after=lambda one: one.next_sequence):
            yield wire.update_to_proto(update)

    async def ReadDiff(self, request: pb.ReadDiffRequest, context: Context) -> AsyncIterator[pb.ReadDiffResponse]:
        """Stream a diff that was small enough to be stored whole."""
        view = await self._store.execution(request.execution_id) if request.execution_id else None
        if view is None:
            raise NotRecorded
        base_commit_id, commit_id = wire.result_commits(view)
        if base_commit_id == commit_id:
            return
        if view.output.changes.diff_truncated:
            raise NotRecorded
        yield pb.ReadDiffResponse(data=view.output.changes.diff)

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        """List files, on one page, where all were recorded."""
        artifacts = (await self._store.execution(request.execution_id)).output.artifacts
        if artifacts.total > len(artifacts.kept):
            raise NotRecorded
        return pb.ListArtifactsResponse(artifacts=map(ARTIFACT.to_proto, artifacts.kept))


class AwayStandIn:
    """Answers for a cell that does not answer itself: an execution that was lost with it has no more events."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        first = max(1, request.from_sequence)
        view = await self._store.execution(request.execution_id)
        if not (request.follow and view.state.is_final and view.reason == NODE_LOST):
            raise NotRecorded
        yield wire.update_to_proto(ExecutionUpdate(first, end=view))
