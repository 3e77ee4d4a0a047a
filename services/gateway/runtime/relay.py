"""An execution's events, passed on from the node that has them.

Nothing is kept here: one batch is in hand at a time, and the next is asked for when the viewer has taken it. When the
execution service goes away, it is asked again from the next sequence, so a viewer sees neither gap nor doubling.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import grpc
from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub

from services.common.errors import OutOfRange
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.model import ExecutionView
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.watching import HEARTBEAT_SECONDS, looks
from services.lifecycle.model import ExecutionState

_PATIENCE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.3
_REASON: Final = "EVENTS_OUT_OF_RANGE"

Condition = Callable[[ExecutionView], bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events; or the end of the execution; or neither: a heartbeat."""

    events: tuple[event_pb2.Event, ...] = ()
    end: ExecutionView | None = None

    def position_after(self, position: int) -> int:
        """Return the sequence that follows, where `position` was the next before."""
        return self.events[-1].sequence + 1 if self.events else position


class Relay:
    """Reads the events of executions from the cell's execution service."""

    def __init__(self, store: JobStore, changes: Changes, channel: grpc.aio.Channel) -> None:
        self._store = store
        self._changes = changes
        self._execution = ExecutionServiceStub(channel)

    async def batches(self, execution_id: str, first: int, *, follow: bool) -> AsyncGenerator[Batch, None]:
        """Yield events from the sequence `first` on, and with `follow` the end, whenever it comes.

        Raises NotFound, OutOfRange (EVENTS_OUT_OF_RANGE), and the node's own error when it stays away.
        """
        view = await self._store.execution(execution_id)
        if not _has_begun(view):
            if not follow:
                return
            async with aclosing(self._until(view, _has_begun)) as beginnings:
                async for beginning in beginnings:
                    view = beginning or view
                    yield Batch()
        if view.state.is_final and view.start_time is None:  # it never began, so there are no events
            if first > 1:
                raise OutOfRange(1, 1, reason=_REASON)
            if follow:
                yield Batch(end=view)
            return
        async with aclosing(self._events(execution_id, first, follow=follow)) as batches:
            async for batch in batches:
                yield batch
        if follow:
            # The node knows of the end; here it is known when the driver has written it down.
            async with aclosing(self._until(view, lambda current: current.state.is_final)) as ends:
                async for ended in ends:
                    yield Batch(end=ended)

    async def _until(self, view: ExecutionView, done: Condition) -> AsyncGenerator[ExecutionView | None, None]:
        """Yield heartbeats, and last the execution when it is as wanted."""

        async def look() -> ExecutionView | None:
            current = await self._store.execution(view.execution_id)
            return current if done(current) else None

        async with aclosing(looks(self._changes, view.job_id, look)) as currents:
            async for current in currents:
                yield current
                if current is not None:
                    return

    async def _events(self, execution_id: str, first: int, *, follow: bool) -> AsyncGenerator[Batch, None]:
        position, away_since, beat = first, None, time.monotonic()
        while True:
            request = pb.WatchEventsRequest(execution_id=execution_id, from_sequence=position, follow=follow)
            try:
                async with streaming(self._execution.WatchEvents(request)) as messages:
                    async for message in messages:
                        away_since = None
                        if message.HasField("end") and not message.events:
                            return
                        batch = Batch(tuple(message.events))
                        position = batch.position_after(position)
                        yield batch
                        beat = time.monotonic()
                        if message.HasField("end"):
                            return
                if not follow:
                    return
                error: grpc.aio.AioRpcError | None = None
            except grpc.aio.AioRpcError as raised:
                error = raised
            away_since = away_since or time.monotonic()
            if error is not None and (not _is_away(error) or time.monotonic() - away_since > _PATIENCE_SECONDS):
                raise error if _is_away(error) else service_error(error)
            if time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                yield Batch()
            await asyncio.sleep(_RETRY_SECONDS)


def _has_begun(view: ExecutionView) -> bool:
    return view.state is not ExecutionState.PENDING


def _is_away(error: grpc.aio.AioRpcError) -> bool:
    return error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
