"""The RPCs of CheckpointService: they translate between messages and the store."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from boatyard.gateway.v1 import checkpoint_pb2 as pb
from boatyard.gateway.v1.checkpoint_pb2_grpc import CheckpointServiceServicer
from grpc import aio

from services.common.logs import current_caller
from services.common.rpc.draining import Draining
from services.gateway.checkpoints import wire
from services.gateway.checkpoints.store import CheckpointStore, checkpoint_key
from services.gateway.checkpoints.watching import watch_open
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.values.checkpoints import CheckpointDecision, Decider
from services.gateway.wire.lists import fitted
from services.lifecycle.model.checkpoint import CheckpointState

Context = aio.ServicerContext[Any, Any]


class CheckpointServicer(CheckpointServiceServicer):
    """Serves boatyard.gateway.v1.CheckpointService."""

    def __init__(self, store: CheckpointStore, notifier: JobNotifier, draining: Draining) -> None:
        self._store = store
        self._notifier = notifier
        self._draining = draining

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        filters, page = wire.list_checkpoints_from_proto(request)
        views = await self._store.page(filters, page)
        checkpoints, token = fitted(views, page, partial(wire.checkpoint_to_proto, brief=True), checkpoint_key)
        total = None if request.page_token else await self._store.number_of(filters)
        return pb.ListCheckpointsResponse(checkpoints=checkpoints, next_page_token=token, total_size=total)

    async def WatchCheckpoints(
        self, request: pb.WatchCheckpointsRequest, context: Context
    ) -> AsyncIterator[pb.WatchCheckpointsResponse]:
        views = watch_open(self._store, self._notifier, wire.watch_checkpoints_from_proto(request))
        async for view in self._draining.stream(views, start=0, position_after=lambda _: 0):
            checkpoint = None if view is None else wire.checkpoint_to_proto(view, brief=True)
            yield pb.WatchCheckpointsResponse(checkpoint=checkpoint)

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Context) -> pb.GetCheckpointResponse:
        checkpoint = await self._store.get(request.checkpoint_id)
        return pb.GetCheckpointResponse(checkpoint=wire.checkpoint_to_proto(checkpoint))

    async def ApproveCheckpoint(
        self, request: pb.ApproveCheckpointRequest, context: Context
    ) -> pb.ApproveCheckpointResponse:
        approval = _decision(CheckpointState.APPROVED, request.comment, context)
        decided, takes_effect = await self._store.decide(request.checkpoint_id, approval)
        return pb.ApproveCheckpointResponse(
            checkpoint=wire.checkpoint_to_proto(decided), already_decided=not takes_effect
        )

    async def RejectCheckpoint(
        self, request: pb.RejectCheckpointRequest, context: Context
    ) -> pb.RejectCheckpointResponse:
        rejection = _decision(CheckpointState.REJECTED, request.reason, context)
        decided, takes_effect = await self._store.decide(request.checkpoint_id, rejection)
        return pb.RejectCheckpointResponse(
            checkpoint=wire.checkpoint_to_proto(decided), already_decided=not takes_effect
        )

    async def RequestChanges(self, request: pb.RequestChangesRequest, context: Context) -> pb.RequestChangesResponse:
        changes = _decision(CheckpointState.CHANGES_REQUESTED, request.comment, context)
        decided, takes_effect = await self._store.decide(request.checkpoint_id, changes)
        return pb.RequestChangesResponse(checkpoint=wire.checkpoint_to_proto(decided), already_decided=not takes_effect)


def _decision(state: CheckpointState, comment: str, context: Context) -> CheckpointDecision:
    """Return the caller's decision, with the caller's name, address and user agent."""
    via = dict(context.invocation_metadata() or ()).get("user-agent", "")
    decider = Decider(name=current_caller(), peer=context.peer(), via=via[:255] if isinstance(via, str) else "")
    return CheckpointDecision(state=state, comment=comment, decider=decider)
