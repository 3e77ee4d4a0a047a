"""The RPCs: from the wire to the manager and back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceServicer
from grpc import aio

from services.common.rpc.draining import Draining
from services.execution.service import watching
from services.execution.service.capabilities import Capability
from services.execution.service.manager import ExecutionManager
from services.execution.service.messaging import Talking
from services.execution.service.terminals import Attaching
from services.execution.wire import events, messages
from services.execution.wire.start import StartReader

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
        return pb.StartExecutionResponse(execution=messages.execution(execution))

    async def DescribeNode(self, request: pb.DescribeNodeRequest, context: Context) -> pb.DescribeNodeResponse:
        """See the contract."""
        return pb.DescribeNodeResponse(capabilities=map(messages.capability, self._capabilities))

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """See the contract."""
        execution = await self._executions.get(messages.execution_id(request.execution_id))
        return pb.GetExecutionResponse(execution=messages.execution(execution, await self._talking.pending(execution)))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """See the contract."""
        page, token = await self._executions.page(*messages.wanted(request))
        return pb.ListExecutionsResponse(executions=map(messages.execution, page), next_page_token=token)

    async def WaitExecution(self, request: pb.WaitExecutionRequest, context: Context) -> pb.WaitExecutionResponse:
        """See the contract."""
        execution_id, seconds = messages.wait(request, context.time_remaining())
        async with self._draining.interrupting():
            execution = await self._executions.wait(execution_id, seconds)
        return pb.WaitExecutionResponse(execution=messages.execution(execution))

    async def StopExecution(self, request: pb.StopExecutionRequest, context: Context) -> pb.StopExecutionResponse:
        """See the contract."""
        execution = await self._executions.stop(*messages.stop(request))
        return pb.StopExecutionResponse(execution=messages.execution(execution))

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        execution_id, start, kinds = messages.watch(request)
        source = watching.watch(self._executions, execution_id, start, follow=request.follow, kinds=kinds)
        stream = self._draining.stream(source, start=start, position_after=lambda batch: batch.next_sequence)
        async with aclosing(stream):
            async for batch in stream:
                yield events.batch(batch)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        """See the contract."""
        await self._talking.send(*messages.message(request))
        return pb.SendMessageResponse()

    async def ResolvePermission(
        self, request: pb.ResolvePermissionRequest, context: Context
    ) -> pb.ResolvePermissionResponse:
        """See the contract."""
        execution_id, permission_id, answer = messages.resolution(request)
        holds = await self._talking.resolve(execution_id, permission_id, answer)
        return pb.ResolvePermissionResponse(answer=messages.answer(permission_id, holds))

    async def AttachExecution(
        self, requests: AsyncIterator[pb.AttachExecutionRequest], context: Context
    ) -> AsyncIterator[pb.AttachExecutionResponse]:
        """See the contract."""
        first = await anext(requests, pb.AttachExecutionRequest())
        execution_id = messages.execution_id(first.execution_id)
        source = self._attaching.attach(execution_id, (messages.typed(request) async for request in requests))
        stream = self._draining.stream(source, start=0, position_after=lambda taken: taken.bytes)
        async with aclosing(stream):
            async for taken in stream:
                yield messages.taken(taken)
