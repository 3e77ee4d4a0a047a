"""The RPCs: from the wire to the manager and back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceServicer
from grpc import aio

from services.agent.allowance import DEFAULT_ALLOWANCE, Allowance
from services.agent.images import NO_IMAGES, ContainerImages
from services.common.rpc.draining import Draining
from services.execution.service import recordings, watching
from services.execution.service.agents import Agents
from services.execution.service.capabilities import Capability
from services.execution.service.manager import ExecutionManager
from services.execution.service.messaging import Messaging
from services.execution.service.terminals import Terminals
from services.execution.wire import events, requests, responses
from services.execution.wire.start import StartReader

Context = aio.ServicerContext[Any, Any]


class ExecutionServicer(ExecutionServiceServicer):
    """Serves boatyard.execution.v1.ExecutionService."""

    def __init__(
        self,
        executions: ExecutionManager,
        messaging: Messaging,
        terminals: Terminals,
        starts: StartReader,
        *,
        draining: Draining,
        capabilities: Sequence[Capability] = (),
        allowance: Allowance = DEFAULT_ALLOWANCE,
        images: ContainerImages = NO_IMAGES,
        agents: Agents | None = None,
    ) -> None:
        self._executions = executions
        self._messaging = messaging
        self._terminals = terminals
        self._starts = starts
        self._draining = draining
        self._capabilities = capabilities
        self._allowance = allowance
        self._images = images
        self._agents = agents

    async def StartExecution(self, request: pb.StartExecutionRequest, context: Context) -> pb.StartExecutionResponse:
        execution = await self._executions.start(self._starts.read(request))
        return pb.StartExecutionResponse(execution=responses.EXECUTION.to_proto(execution))

    async def DescribeNode(self, request: pb.DescribeNodeRequest, context: Context) -> pb.DescribeNodeResponse:
        agents = [] if self._agents is None else await asyncio.to_thread(self._agents.describe)
        return responses.node_to_proto(self._capabilities, self._allowance, self._images, agents)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        execution = await self._executions.with_use(await self._executions.get(request.execution_id))
        return pb.GetExecutionResponse(
            execution=responses.execution_to_proto(execution, await self._messaging.pending(execution))
        )

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        page, token = await self._executions.page(*requests.list_from_proto(request))
        return pb.ListExecutionsResponse(executions=map(responses.EXECUTION.to_proto, page), next_page_token=token)

    async def WaitExecution(self, request: pb.WaitExecutionRequest, context: Context) -> pb.WaitExecutionResponse:
        execution_id, seconds = requests.wait_from_proto(request, context.time_remaining())
        async with self._draining.interrupting():
            execution = await self._executions.wait(execution_id, seconds, until_started=request.until_started)
        return pb.WaitExecutionResponse(execution=responses.EXECUTION.to_proto(execution))

    async def StopExecution(self, request: pb.StopExecutionRequest, context: Context) -> pb.StopExecutionResponse:
        execution = await self._executions.stop(*requests.stop_from_proto(request))
        return pb.StopExecutionResponse(execution=responses.EXECUTION.to_proto(execution))

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        execution_id, start, kinds = requests.watch_from_proto(request)
        source = watching.watch(self._executions, execution_id, start, follow=request.follow, kinds=kinds)
        stream = self._draining.stream(source, start=start, position_after=lambda batch: batch.next_sequence)
        async with aclosing(stream):
            async for batch in stream:
                yield events.batch_to_proto(batch)

    async def ReadRecording(
        self, request: pb.ReadRecordingRequest, context: Context
    ) -> AsyncIterator[pb.ReadRecordingResponse]:
        async with aclosing(recordings.read(self._executions, request.execution_id, request.offset)) as pieces:
            async for data, next_offset in pieces:
                yield pb.ReadRecordingResponse(data=data, next_offset=next_offset)

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        await self._messaging.send(*requests.message_from_proto(request))
        return pb.SendMessageResponse()

    async def ResolvePermission(
        self, request: pb.ResolvePermissionRequest, context: Context
    ) -> pb.ResolvePermissionResponse:
        execution_id, permission_id, answer = requests.answer_from_proto(request)
        holds = await self._messaging.resolve(execution_id, permission_id, answer)
        return pb.ResolvePermissionResponse(
            answer=responses.PERMISSION_ANSWER.to_proto(holds, permission_id=permission_id)
        )

    async def Answer(self, request: pb.AnswerRequest, context: Context) -> pb.AnswerResponse:
        holds = await self._messaging.answer(*requests.ask_answer_from_proto(request))
        return pb.AnswerResponse(answer=responses.ask_answer_to_proto(holds))

    async def AttachExecution(
        self, request_iterator: AsyncIterator[pb.AttachExecutionRequest], context: Context
    ) -> AsyncIterator[pb.AttachExecutionResponse]:
        first = await anext(request_iterator, pb.AttachExecutionRequest())
        execution_id = requests.attached_from_proto(first)
        source = self._terminals.attach(
            execution_id, (requests.terminal_event_from_proto(request) async for request in request_iterator)
        )
        stream = self._draining.stream(source, start=0, position_after=lambda progress: progress.bytes)
        async with aclosing(stream):
            async for progress in stream:
                yield responses.progress_to_proto(progress)
