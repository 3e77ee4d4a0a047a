"""The supervisor's clients: health of services, and the agents that outlive it."""

import asyncio

import grpc
from boatyard.execution.v1 import execution_pb2 as pb
from boatyard.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from services.common.errors import FailedPrecondition, NotFound, ServiceError, StartError, Unavailable
from services.common.home import Home
from services.common.rpc.nodes import open_node_channel
from services.common.rpc.status import service_error

ALIVE = (pb.NodeExecution.STATE_PENDING, pb.NodeExecution.STATE_RUNNING)

_HEALTH_PAUSE_S = 0.05
_WAIT_S = 20
_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ExecutionService"]


async def wait_until_serving(home: Home, address: str) -> None:
    """Wait until a service's health is SERVING. The caller bounds the wait."""
    async with open_node_channel(home, address) as channel:
        while not await _is_serving(channel):  # noqa: ASYNC110 - another process's event
            await asyncio.sleep(_HEALTH_PAUSE_S)


async def is_serving(home: Home, address: str) -> bool:
    """Return True when a service's health is SERVING. Asks once, with a deadline of a second."""
    try:
        async with open_node_channel(home, address) as channel:
            return await _is_serving(channel)
    except (Unavailable, StartError):
        return False


async def _is_serving(channel: grpc.aio.Channel) -> bool:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        answer = await check(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.aio.AioRpcError as error:
        # It serves, and has no room for this: others on this machine ask for its health all the time.
        return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return answer.status == health_pb2.HealthCheckResponse.SERVING


class Agents:
    """The executions of an execution service. Its errors are ServiceErrors."""

    def __init__(self, home: Home, address: str) -> None:
        self._home = home
        self._address = address

    async def alive(self) -> list[str]:
        """Return the ids of the executions that have not ended."""
        async with self._channel() as channel:
            return await _alive(ExecutionServiceStub(channel))

    async def end_all(self, grace_s: float) -> int:
        """Stop all executions, each with `grace_s` between SIGTERM and SIGKILL; return how many there were.

        Returns when none of their processes is left.
        """
        async with self._channel() as channel:
            stub = ExecutionServiceStub(channel)
            ended: set[str] = set()
            # Repeatedly, because a new execution may begin while the others end.
            while ids := await _alive(stub):
                await asyncio.gather(*(_end(stub, execution_id, grace_s) for execution_id in ids))
                ended.update(ids)
            return len(ended)

    def _channel(self) -> grpc.aio.Channel:
        return open_node_channel(self._home, self._address, self._home.cell_token(), services=[_DESCRIPTOR])


async def _alive(stub: ExecutionServiceStub) -> list[str]:
    ids: list[str] = []
    request = pb.ListExecutionsRequest(states=ALIVE, page_size=1000)
    while True:
        try:
            answer = await stub.ListExecutions(request)
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from None
        ids += [execution.execution_id for execution in answer.executions]
        if not answer.next_page_token:
            return ids
        request.page_token = answer.next_page_token


async def _end(stub: ExecutionServiceStub, execution_id: str, grace_s: float) -> None:
    grace = Duration()
    grace.FromMilliseconds(int(grace_s * 1000))
    try:
        await stub.StopExecution(pb.StopExecutionRequest(execution_id=execution_id, grace=grace))
        wait = pb.WaitExecutionRequest(execution_id=execution_id)
        while (await stub.WaitExecution(wait, timeout=_WAIT_S)).execution.state in ALIVE:
            continue
    except grpc.aio.AioRpcError as error:
        problem: ServiceError = service_error(error)
        if not isinstance(problem, NotFound | FailedPrecondition):  # these say that it has ended by itself
            raise problem from None
