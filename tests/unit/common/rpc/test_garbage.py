"""What a call has used is free when it ends, however it ends: the collector of cycles stops everything meanwhile."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.errors import NotFound
from services.common.rpc.call import RpcCall
from services.common.rpc.channel import open_channel
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import NAME, Echo, EchoStub

CALLS = 20
FEW = 5
"""Of one call gRPC has more to do after its end, and it leaves an error and a call."""


async def answer(word: str) -> str:
    if word == "missing":
        raise NotFound("word", word)
    return word


ENDS: dict[str, tuple[str | None, Callable[[grpc.aio.Channel], Awaitable[object]]]] = {
    "answered": (TOKEN, lambda to: EchoStub(to).unary(b"a")),
    "without a token": (None, lambda to: EchoStub(to).unary(b"a")),
    "refused by the handler": (TOKEN, lambda to: EchoStub(to).unary(b"missing")),
    "a stream that is refused": (TOKEN, lambda to: EchoStub(to).server_stream(b"a missing").read()),
    "unparsed": (TOKEN, lambda to: to.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff")),
    "aborted by gRPC's own servicer": (
        None,
        lambda to: health_pb2_grpc.HealthStub(to).Check(health_pb2.HealthCheckRequest(service="none")),
    ),
    "unknown": (None, lambda to: to.unary_unary(f"/{NAME}/None")(b"")),
}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.usefixtures("uncollected")
async def test_a_call_that_has_ended_is_no_garbage(end: str) -> None:
    token, call = ENDS[end]
    async with serving(Echo(answer).registration()) as server, open_channel(server.address, token) as channel:
        for _ in range(CALLS):
            try:
                await call(channel)
            except grpc.aio.AioRpcError as error:
                del error
        async with asyncio.timeout(10):
            while left() > FEW:
                await asyncio.sleep(0.01)  # the server's tasks end a little after the call


def left() -> int:
    """Count what the ended calls, and those before, have left behind."""
    return sum(isinstance(each, RpcCall | grpc.aio.AbortError) for each in gc.get_objects())
