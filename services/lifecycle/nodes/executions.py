"""The calls to the execution service."""

from collections import deque
from collections.abc import Awaitable, Callable

import grpc
from boatyard.execution.v1 import event_pb2 as event_pb
from boatyard.execution.v1 import execution_pb2 as execution_pb
from boatyard.execution.v1 import execution_pb2_grpc as execution_rpc
from google.protobuf.duration_pb2 import Duration

from services.common.errors import AlreadyExists, FailedPrecondition, NotFound
from services.common.rpc.streaming import streaming
from services.common.text import without_cut_character
from services.lifecycle.model.node_work import Launch, Run
from services.lifecycle.model.states import ExecutionState
from services.lifecycle.nodes import wire
from services.lifecycle.nodes.calls import LONG_SECONDS, SHORT_SECONDS, JobCalls

Seen = Callable[[Run], Awaitable[None]]
Remind = Callable[[], Awaitable[None]]

_WAIT_SECONDS = 30.0
_TAIL_EVENTS = 256
_RAW = event_pb.OutputChunk.STREAM_RAW


class ExecutionClient:
    """The execution service, for one job."""

    def __init__(self, channel: grpc.aio.Channel, calls: JobCalls) -> None:
        self._stub = execution_rpc.ExecutionServiceStub(channel)
        self._calls = calls

    async def start(self, execution_id: str, launch: Launch) -> Run:
        """Start an execution; an existing one of that id is returned as it is."""
        request = execution_pb.StartExecutionRequest(
            execution_id=execution_id, spec=wire.spec_to_proto(launch, self._calls.fence.job_id)
        )
        try:
            answer = await self._calls.call(self._stub.StartExecution, request)
        except AlreadyExists:  # our id: started with the message that another version makes of the same launch
            if (run := await self.find(execution_id)) is None:
                raise
            return run
        return wire.run_from_proto(answer.execution)

    async def asks_before_use(self) -> bool:
        """Return whether the service can ask before an agent uses a model; one of an earlier version cannot."""
        answer = await self._calls.call(self._stub.DescribeNode, execution_pb.DescribeNodeRequest())
        return answer.reserves_model_use

    async def find(self, execution_id: str) -> Run | None:
        """Return an execution as it is now; None when it was never started."""
        request = execution_pb.GetExecutionRequest(execution_id=execution_id)
        try:
            answer = await self._calls.call(self._stub.GetExecution, request)
        except NotFound:
            return None
        return wire.run_from_proto(answer.execution)

    async def remind(self, execution_id: str, launch: Launch) -> None:
        """Start an execution once more that was started before and has not ended, for the keys that go with it.

        Its service keeps them in memory: one that was restarted has lost them.
        """
        run = await self.find(execution_id) if launch.providers else None
        if run is not None and not run.state.is_final:
            await self.start(execution_id, launch)

    async def wait(
        self,
        execution_id: str,
        *,
        until_started: bool = False,
        seen: Seen | None = None,
        remind: Remind | None = None,
    ) -> Run:
        """Wait for the end of an execution, or for its beginning, also across restarts of its service.

        `seen` is called with it as it is every half minute, and `remind` when its service may have been restarted.
        """
        request = execution_pb.WaitExecutionRequest(
            execution_id=execution_id, timeout=Duration(seconds=int(_WAIT_SECONDS)), until_started=until_started
        )
        was_lost = False

        async def once() -> execution_pb.WaitExecutionResponse:
            nonlocal was_lost
            if was_lost and remind is not None:
                await remind()
            was_lost = True  # unless it answers
            timeout = _WAIT_SECONDS + SHORT_SECONDS
            answer = await self._stub.WaitExecution(request, timeout=timeout, metadata=self._calls.metadata)
            was_lost = False
            return answer

        while True:
            run = wire.run_from_proto((await self._calls.persist(once)).execution)
            if run.state.is_final or (until_started and run.state is not ExecutionState.PENDING):
                return run
            if seen is not None:
                await seen(run)

    async def stop(self, execution_id: str) -> None:
        """Stop an execution. Does nothing when it has ended, or was never started."""
        request = execution_pb.StopExecutionRequest(execution_id=execution_id)
        try:
            await self._calls.call(self._stub.StopExecution, request)
        except NotFound:
            return
        except FailedPrecondition as error:
            if error.reason != "EXECUTION_STATE":
                raise

    async def tail(self, run: Run, max_bytes: int) -> bytes:
        """Return the last bytes that an ended execution wrote, both streams interleaved, from a whole character on.

        Without lines that are for programs: what they say is in other events.
        """
        request = execution_pb.WatchEventsRequest(
            execution_id=run.execution_id, from_sequence=max(1, run.last_sequence - _TAIL_EVENTS)
        )

        async def read() -> bytes:
            parts: deque[bytes] = deque()
            size = 0
            call = self._stub.WatchEvents(request, timeout=LONG_SECONDS, metadata=self._calls.metadata)
            async with streaming(call) as messages:
                async for message in messages:
                    for event in message.events:
                        data = b"" if event.output.stream == _RAW else event.output.data
                        parts.append(data)
                        size += len(data)
                    while size - len(parts[0] if parts else b"") > max_bytes:
                        size -= len(parts.popleft())
            data = b"".join(parts)
            return data if size == run.output_bytes <= max_bytes else without_cut_character(data[-max_bytes:])

        return await self._calls.persist(read)
