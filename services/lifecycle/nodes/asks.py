"""What an agent asks while it works, at the execution service: read from its events, and answered."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import grpc
from boatyard.agent.v1 import ask_pb2 as ask_pb
from boatyard.execution.v1 import event_pb2 as event_pb
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.execution.v1 import execution_pb2_grpc as execution_rpc

from services.agent.asks import Reservation, ReservationAnswer
from services.agent.wire import MODEL_GATE, RESERVATION, RESERVATION_ANSWER
from services.common.errors import FailedPrecondition, NotFound, OutOfRange
from services.common.rpc.mapper import Mapper
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.lifecycle.books import AskEnd, RequestUse
from services.lifecycle.nodes.calls import LONG_SECONDS, JobCalls

_KINDS: Final = (event_pb.EVENT_KIND_ASK, event_pb.EVENT_KIND_ASK_END, event_pb.EVENT_KIND_USAGE)
_NO_USE: Final = {"http_status", "latency_seconds", "ask_id", "terms", "web_searches"}  # budgets count what it cost
_USE: Final = Mapper(RequestUse, event_pb.ModelUsage, by_hand=_NO_USE)


@dataclass(slots=True)
class AskBatch:
    """What was asked, by the ids of the asks, and which of them are over. `is_last`: the execution has ended."""

    asked: dict[str, Reservation] = field(default_factory=dict)
    ended: list[AskEnd] = field(default_factory=list)
    is_last: bool = False


class AskClient:
    """The asks of one job's executions."""

    def __init__(self, channel: grpc.aio.Channel, calls: JobCalls) -> None:
        self._stub = execution_rpc.ExecutionServiceStub(channel)
        self._calls = calls

    async def follow(self, execution_id: str, take: Callable[[AskBatch], Awaitable[None]]) -> None:
        """Call `take` with all that an execution asks, from its first event to its end, each once and in order."""
        position = 1

        async def read() -> bool:
            nonlocal position
            has_heard = False
            try:
                async with aclosing(self._messages(execution_id, position)) as messages:
                    async for message in messages:
                        has_heard = True
                        batch = _batch(message.events, is_last=message.HasField("end"))
                        await take(batch)
                        position = message.next_sequence
                        if batch.is_last:
                            return True
            except grpc.aio.AioRpcError as raw:
                if isinstance(service_error(raw), OutOfRange):  # it ended so long ago that its events are gone
                    await take(AskBatch(is_last=True))
                    return True
                if not has_heard:
                    raise
            return False

        while not await self._calls.persist(read):  # each time anew: what was read was no part of a failure
            pass

    async def _messages(self, execution_id: str, start: int) -> AsyncGenerator[execution_pb.WatchEventsResponse, None]:
        request = execution_pb.WatchEventsRequest(
            execution_id=execution_id, from_sequence=start, kinds=_KINDS, follow=True
        )
        call = self._stub.WatchEvents(request, timeout=LONG_SECONDS, metadata=self._calls.metadata)
        async with streaming(call) as messages:
            async for message in messages:
                yield message

    async def answer(self, execution_id: str, ask_id: str, answer: ReservationAnswer) -> None:
        """Answer an ask. Does nothing when it is over, or was answered before."""
        request = execution_pb.AnswerRequest(
            execution_id=execution_id,
            ask_id=ask_id,
            answer=ask_pb.Answer(reservation=RESERVATION_ANSWER.to_proto(answer)),
        )
        try:
            await self._calls.call(self._stub.Answer, request)
        except NotFound:
            return
        except FailedPrecondition as error:
            if error.reason != "EXECUTION_STATE":
                raise


def _batch(events: Sequence[event_pb.Event], *, is_last: bool) -> AskBatch:
    batch = AskBatch(is_last=is_last)
    for event in events:
        match event.WhichOneof("kind"):
            case "ask" if event.ask.HasField("reservation"):
                batch.asked[event.ask.ask_id] = RESERVATION.from_proto(event.ask.reservation)
            case "ask_end":
                gates = tuple(map(MODEL_GATE.from_proto, event.ask_end.gates))
                batch.ended.append(
                    AskEnd(event.ask_end.ask_id, is_use_unknown=event.ask_end.is_use_unknown, gates=gates)
                )
            case "usage" if event.usage.ask_id:
                batch.ended.append(AskEnd(event.usage.ask_id, _USE.from_proto(event.usage)))
    return batch
