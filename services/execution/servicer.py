"""The RPCs: from the wire to the manager and back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceServicer
from grpc import aio

from services.common.rpc.draining import Draining
from services.execution import event_wire, watching, wire
from services.execution.attaching import Attaching
from services.execution.capabilities import Capability
from services.execution.manager import ExecutionManager
from services.execution.requests import StartReader
from services.execution.talking import Talking

Context = aio.ServicerContext[Any, Any]


class ExecutionServicer(ExecutionServiceServicer):
    """Serves boatyard.execution.v1.ExecutionService."""

    def __init__(
        self,
        executions: ExecutionManager,
        talking: Talking,
        attaching: Attaching,
        starts: StartReader,
        *,
        draining: Draining,
        capabilities: Sequence[Capability] = (),
    ) -> None:
        self._executions = executions
        self._talking = talking
        self._attaching = attaching
        self._starts = starts
        self._draining = draining
        self._capabilities = capabilities

    async def StartExecution(self, request: pb.StartExecutionRequest, context: Context) -> pb.StartExecutionResponse:
        """See the contract."""
        execution = await self._executions.start(self._starts.read(request))
        return pb.StartExecutionResponse(execution=wire.execution(execution))

    async def DescribeNode(self, request: pb.DescribeNodeRequest, context: Context) -> pb.DescribeNodeResponse:
        """See the contract."""
        return pb.DescribeNodeResponse(capabilities=map(wire.capability, self._capabilities))

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """See the contract."""
        execution = await self._executions.get(wire.execution_id(request.execution_id))
        return pb.GetExecutionResponse(execution=wire.execution(execution, await self._talking.pending(execution)))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """See the contract."""
        page, token = await self._executions.page(*wire.wanted(request))
        return pb.ListExecutionsResponse(executions=map(wire.execution, page), next_page_token=token)

    async def WaitExecution(self, request: pb.WaitExecutionRequest, context: Context) -> pb.WaitExecutionResponse:
        """See the contract."""
        execution_id, seconds = wire.wait(request, context.time_remaining())
        async with self._draining.interrupting():
            execution = await self._executions.wait(execution_id, seconds)
        return pb.WaitExecutionResponse(execution=wire.execution(execution))

    async def StopExecution(self, request: pb.StopExecutionRequest, context: Context) -> pb.StopExecutionResponse:
        """See the contract."""
        execution = await self._executions.stop(*wire.stop(request))
        return pb.StopExecutionResponse(execution=wire.execution(execution))

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        execution_id, start, kinds = wire.watch(request)
        source = watching.watch(self._executions, execution_id, start, follow=request.follow, kinds=kinds)
        stream = self._draining.stream(source, start=start, position_after=lambda batch: batch.next_sequence)
        async with aclosing(stream):
            async for batch in stream:
                yield event_wire.batch(batch)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        """See the contract."""
        await self._talking.send(*wire.message(request))
        return pb.SendMessageResponse()

    async def ResolvePermission(
        self, request: pb.ResolvePermissionRequest, context: Context
    ) -> pb.ResolvePermissionResponse:
        """See the contract."""
        execution_id, permission_id, answer = wire.resolution(request)
        holds = await self._talking.resolve(execution_id, permission_id, answer)
        return pb.ResolvePermissionResponse(answer=wire.answer(permission_id, holds))

    async def AttachExecution(
        self, requests: AsyncIterator[pb.AttachExecutionRequest], context: Context
    ) -> AsyncIterator[pb.AttachExecutionResponse]:
        """See the contract."""
        first = await anext(requests, pb.AttachExecutionRequest())
        execution_id = wire.execution_id(first.execution_id)
        source = self._attaching.attach(execution_id, (wire.typed(request) async for request in requests))
        stream = self._draining.stream(source, start=0, position_after=lambda taken: taken.bytes)
        async with aclosing(stream):
            async for taken in stream:
                yield wire.taken(taken)
