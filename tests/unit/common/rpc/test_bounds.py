"""How many calls of whom a server has open, and what there is room for while somebody floods it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.errors import Exhausted, Unauthenticated
from services.common.fence import Fence
from services.common.rpc import arrivals, bounds
from services.common.rpc.auth import Caller, Credentials
from services.common.rpc.bounds import FEW, SHARES, Places, Room, Share, TooManyCallsError
from services.common.rpc.channel import fence_metadata, open_channel
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import NAME, Echo, EchoStub


class Guests:
    """Lets in everybody whose token begins with `guest`."""

    may_revoke = False

    async def identify(self, credentials: Credentials) -> Caller:
        if not (credentials.token or "").startswith("guest"):
            raise Unauthenticated("who?", reason="TOKEN_REQUIRED")
        return Caller(credentials.token, counted_by=credentials.token)

    def authorize(self, credentials: Credentials) -> None:
        pass


async def hold(word: str) -> str:
    """Answer only what does not say `hold`."""
    if word == "hold":
        await asyncio.Event().wait()
    return word


@contextmanager
def open_streams(stub: EchoStub, count: int, method: str = "server_stream") -> Iterator[list[grpc.aio.Call]]:
    calls = [getattr(stub, method)(b"x hold") for _ in range(count)]
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()


@asynccontextmanager
async def guest(address: str, name: str) -> AsyncIterator[EchoStub]:
    async with open_channel(address, name) as channel:
        yield EchoStub(channel)


async def outcome(call: grpc.aio.Call) -> str:
    """Return OK for a stream that has sent something, or the reason of its end."""
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return service_error(error).reason
    return "OK"


async def test_a_caller_that_takes_its_share_is_refused_more_and_others_are_served() -> None:
    each = SHARES[Room.STREAMS].each
    async with (
        serving(Echo(hold).registration(), authenticator=Guests()) as server,
        guest(server.address, "guest-1") as greedy,
        guest(server.address, "guest-2") as modest,
    ):
        with open_streams(greedy, each + 50) as calls:
            outcomes = [await outcome(call) for call in calls]
            assert (outcomes.count("OK"), outcomes.count("TOO_MANY_CALLS")) == (each, 50)
            with open_streams(modest, 1) as others:
                assert await outcome(others[0]) == "OK"
            assert await greedy.unary(b"a") == b"a", "streams take no room from calls"
        async with asyncio.timeout(10):
            while await outcome(greedy.server_stream(b"x")) != "OK":
                await asyncio.sleep(0.01)


async def test_a_refusal_says_when_to_try_again() -> None:
    async with (
        serving(Echo(hold).registration(), authenticator=Guests()) as server,
        guest(server.address, "guest") as greedy,
    ):
        with open_streams(greedy, SHARES[Room.STREAMS].each) as calls:
            assert [await outcome(call) for call in calls] == ["OK"] * len(calls)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await greedy.server_stream(b"x").read()
    error = service_error(refused.value)
    assert isinstance(error, Exhausted)
    assert (error.reason, error.retry_after) == ("TOO_MANY_CALLS", 1.0)


async def test_streams_of_health_without_a_token_hold_nothing_up() -> None:
    """Many of them refused everybody once."""
    async with (
        serving(Echo().registration(), authenticator=Guests()) as server,
        grpc.aio.insecure_channel(server.address) as flood,
        open_channel(server.address, "guest") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(flood).Watch
        calls = [watch(health_pb2.HealthCheckRequest()) for _ in range(200)]
        outcomes = [await outcome(call) for call in calls]
        assert outcomes.count("OK") == SHARES[Room.WATCHES].each
        assert await EchoStub(channel).unary(b"a") == b"a"
        check = health_pb2_grpc.HealthStub(flood).Check
        assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        known = health_pb2_grpc.HealthStub(channel).Watch
        async with streaming(known(health_pb2.HealthCheckRequest())) as stream:
            assert await outcome(stream) == "OK", "who shows a token has a share of its own"
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/nobody.has.This/Method"])
async def test_calls_of_nobody_wait_for_their_turn_and_others_do_not(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "STRANGERS_PER_SECOND", 0.01)
    monkeypatch.setattr(bounds, "STRANGERS_AT_ONCE", 3)
    async with (
        serving(Echo().registration(), authenticator=Guests()) as server,
        grpc.aio.insecure_channel(server.address) as flood,
        guest(server.address, "guest") as stub,
    ):
        calls = [flood.unary_unary(method)(b"") for _ in range(10)]
        async with asyncio.timeout(10):
            while sum(call.done() for call in calls) < 3:
                await asyncio.sleep(0.01)
        for number in range(20):
            assert await stub.unary(b"%d" % number) == b"%d" % number
        assert sum(call.done() for call in calls) <= 4
        for call in calls:
            call.cancel()


async def test_where_there_is_one_caller_its_calls_for_jobs_have_room_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    total = 20
    monkeypatch.setitem(SHARES, Room.STREAMS, Share(total=total, each=2))
    async with serving(Echo(hold).registration()) as server, open_channel(server.address, TOKEN) as channel:
        stub = EchoStub(channel)
        with open_streams(stub, total + 1) as calls:
            outcomes = [await outcome(call) for call in calls]
            assert outcomes.count("OK") == total
            for_a_job = stub.server_stream(b"x hold", metadata=fence_metadata(Fence("job-1", 1)))
            assert await outcome(for_a_job) == "OK"
            for_a_job.cancel()


def entered(places: Places, count: int, caller: str, stack: ExitStack) -> int:
    """Take places; return how many there were."""
    for number in range(count):
        try:
            stack.enter_context(places.place(caller))
        except TooManyCallsError:
            return number
    return count


def test_the_last_quarter_of_a_room_is_for_those_who_have_few_calls() -> None:
    places = Places(Room.LOOKUPS, Share(total=400, each=150))
    with ExitStack() as stack:
        assert [entered(places, 200, origin, stack) for origin in "ab"] == [150, 150]
        late = [entered(places, 200, str(number), stack) for number in range(7)]
        assert late == [FEW] * 6 + [400 - 300 - 6 * FEW]
    with ExitStack() as stack:
        assert entered(places, 200, "c", stack) == 150, "all places are given back"


async def test_a_request_is_neither_awaited_nor_parsed_before_its_caller_is_known() -> None:
    async with serving(Echo().registration()) as server, open_channel(server.address) as channel:
        silent = channel.stream_unary(f"/{NAME}/Unary")()  # never sends its request
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await silent
        assert service_error(refused.value).reason == "TOKEN_REQUIRED"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoStub(channel).unary(b"x" * (3 << 20))
        assert service_error(refused.value).reason == "TOKEN_REQUIRED"


async def test_a_request_that_does_not_come_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "REQUEST_SECONDS", 0.1)
    async with serving(Echo().registration()) as server, open_channel(server.address, TOKEN) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_stream(f"/{NAME}/ServerStream")().read()
        assert service_error(caught.value).reason == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_what_cannot_be_parsed_is_an_invalid_argument(method: str) -> None:
    async with serving(Echo().registration()) as server, open_channel(server.address, TOKEN) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_stream(f"/grpc.health.v1.Health/{method}")(b"\xff\xff").read()
        call = channel.stream_unary(f"/grpc.health.v1.Health/{method}")()
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as empty:
            await call
    assert service_error(caught.value).reason == "INVALID_FIELDS"
    assert service_error(empty.value).reason == "INVALID_FIELDS"
