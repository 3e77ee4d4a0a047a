"""Where the events of executions are: in this cell's execution service, or, sent by a coordinator, in the database."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import grpc
from boatyard.execution.v1 import execution_pb2
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub

from services.common.errors import OutOfRange, Unavailable
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.jobs.store import JobStore
from services.gateway.ledger.events import EventStore
from services.gateway.ledger.looks import HEARTBEAT_SECONDS, POLL_SECONDS
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.runtime.relay import EventBatch, SourceUnreachable
from services.gateway.wire.events import events_from_bytes

LAST_EVENTS_SECONDS: Final = 10.0
"""How long to wait for the last events of an execution that has ended: its machine may never send them."""
_UNREACHABLE: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class NodeEvents:
    """Implements EventSource for this cell's executions."""

    def __init__(self, execution: grpc.aio.Channel) -> None:
        self._execution = ExecutionServiceStub(execution)

    async def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: Sequence[Any]
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield events as EventSource says."""
        request = execution_pb2.WatchEventsRequest(
            execution_id=execution_id, from_sequence=first, follow=follow, kinds=kinds
        )
        try:
            async with streaming(self._execution.WatchEvents(request)) as messages:
                async for message in messages:
                    following = message.events[-1].sequence + 1 if message.events else None
                    yield EventBatch(message.events, message.HasField("end"), message.next_sequence or following)
        except grpc.aio.AioRpcError as error:
            if error.code() in _UNREACHABLE:
                raise SourceUnreachable(error) from error
            raise service_error(error) from error


class ReceivedEvents:
    """Implements EventSource for the executions of coordinators, from what they have sent."""

    def __init__(self, jobs: JobStore, events: EventStore, notifier: JobNotifier) -> None:
        self._jobs = jobs
        self._events = events
        self._notifier = notifier

    async def events(
        self, execution_id: str, first: int, *, follow: bool, kinds: Sequence[Any]
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield events as EventSource says, as they arrive.

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
            raise SourceUnreachable(error) from error

    async def _next(self, execution_id: str, position: int, kinds: Sequence[Any]) -> EventBatch | None:
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
