"""What callers see of the layers: statuses, details, request ids, refusals; for each arity the same."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.common import errors, logs
from services.common.fence import Fence, current_fence
from services.common.rpc import layers
from services.common.rpc.auth import Caller, Credentials
from services.common.rpc.channel import fence_metadata, open_channel
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub

Answer = Callable[[str], Awaitable[str]]
ARITIES = ["unary", "server_stream", "client_stream", "both"]


@asynccontextmanager
async def echoing(
    answer: Answer | None = None, token: str | None = TOKEN, limit: float = 60.0
) -> AsyncIterator[EchoStub]:
    echo = Echo(answer) if answer else Echo()
    async with (
        serving(echo.registration(), unary_limit_seconds=limit) as server,
        open_channel(server.address, token) as channel,
    ):
        yield EchoStub(channel)


async def call(stub: EchoStub, arity: str, text: str = "a", **options: object) -> list[bytes]:
    """Call by any arity and return all answers."""
    words = iter([word.encode() for word in text.split()])
    match arity:
        case "unary":
            return [await stub.unary(text.encode(), **options)]
        case "server_stream":
            return [answer async for answer in stub.server_stream(text.encode(), **options)]
        case "client_stream":
            return [await stub.client_stream(words, **options)]
        case _:
            return [answer async for answer in stub.both(words, **options)]


def raising(error: BaseException) -> Answer:
    async def answer(text: str) -> str:
        raise error

    return answer


@pytest.mark.parametrize("arity", ARITIES)
async def test_answers_pass_unchanged(arity: str) -> None:
    async with echoing() as stub:
        assert b" ".join(await call(stub, arity, "a b")) == b"a b"


@pytest.mark.parametrize("arity", ARITIES)
async def test_an_error_reaches_the_caller_with_its_details(arity: str) -> None:
    async with echoing(raising(errors.Invalid([("ref", "is empty"), ("name", "is too long")]))) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, arity)
    error = service_error(caught.value)
    assert isinstance(error, errors.Invalid)
    assert error.violations == (("ref", "is empty"), ("name", "is too long"))
    assert (error.reason, error.message) == ("INVALID_FIELDS", "ref: is empty; name: is too long")


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize(
    "raised",
    [
        ValueError("secret-path"),
        ExceptionGroup("secret-path", [ValueError("secret-path"), KeyError("secret-path")]),
        errors.RemoteFailure(errors.Status.UNKNOWN, "X", "secret-path"),
        asyncio.CancelledError("secret-path"),
    ],
    ids=["unmapped", "group", "remote", "stray-cancel"],
)
async def test_what_nobody_foresaw_is_internal_and_says_nothing(arity: str, raised: BaseException) -> None:
    async with echoing(raising(raised)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, arity, metadata=(("boatyard-request-id", "request-7"),), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret-path" not in repr(caught.value)
    info = error_details_pb2.RequestInfo()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.request_id == "request-7"
    assert service_error(caught.value).metadata == {errors.REQUEST_ID: "request-7"}


@pytest.mark.parametrize(
    "raised",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)),
        *(MemoryError(), RuntimeError("can't start new thread")),
    ],
    ids=repr,
)
async def test_a_machine_that_is_short_of_something_is_asked_again(raised: Exception) -> None:
    async with echoing(raising(raised)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, "unary")
    error = service_error(caught.value)
    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.retry_after) == ("MACHINE_BUSY", 1.0)


async def test_a_group_of_one_error_is_that_error() -> None:
    group = ExceptionGroup("tasks", [ExceptionGroup("tasks", [errors.NotFound("workspace", "w-1")])])
    async with echoing(raising(group)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, "unary")
    error = service_error(caught.value)
    assert isinstance(error, errors.NotFound)
    assert (error.reason, error.resource_type, error.resource_name) == ("WORKSPACE_NOT_FOUND", "workspace", "w-1")


# Where the client streams, grpc.aio's own client reports INTERNAL when it writes to a call that was refused.
@pytest.mark.parametrize("arity", ["unary", "server_stream"])
@pytest.mark.parametrize("token", [None, "another", "", "tök"])
async def test_who_shows_no_known_token_is_refused(arity: str, token: str | None) -> None:
    async with echoing(raising(AssertionError("reached")), token=None) as stub:
        shown = () if token is None else (("authorization", f"Bearer {token}".encode("ascii", "replace").decode()),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(stub, arity, metadata=shown)
    error = service_error(caught.value)
    assert isinstance(error, errors.Unauthenticated)
    assert error.reason == "TOKEN_REQUIRED"


async def test_health_needs_no_token_and_knows_every_service() -> None:
    echo = Echo().registration()
    async with serving(echo) as server, open_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", echo.name):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_request_id_is_the_callers_and_comes_back() -> None:
    seen: list[str | None] = []

    async def answer(text: str) -> str:
        seen.append(logs.current_request_id())
        return text

    async with echoing(answer) as stub:
        with logs.request("request-9"):
            outgoing = stub.unary(b"x")
            await outgoing
        assert dict(await outgoing.trailing_metadata())["boatyard-request-id"] == "request-9"
        made = stub.unary(b"x", metadata=(("boatyard-request-id", "no spaces allowed"),))
        await made
        given = dict(await made.trailing_metadata())["boatyard-request-id"]
    assert seen == ["request-9", given]
    assert given
    assert " " not in given


async def test_the_fence_is_read_or_refused() -> None:
    seen: list[Fence | None] = []

    async def answer(text: str) -> str:
        seen.append(current_fence())
        return text

    async with echoing(answer) as stub:
        await stub.unary(b"x", metadata=fence_metadata(Fence("job-1", 3)))
        await stub.unary(b"x")
        for wrong in ("job-1", "job-1/0", "/1", "job-1/x", "Job/1", "job-1/99999999999999999999"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.unary(b"x", metadata=(("boatyard-fence", wrong),))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert seen == [Fence("job-1", 3), None]


async def test_the_server_caps_the_time_of_a_call() -> None:
    async def answer(text: str) -> str:
        await asyncio.sleep(30)
        return text

    async with echoing(answer, limit=0.1) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.unary(b"x", timeout=20)
    assert isinstance(service_error(caught.value), errors.DeadlineExceeded)


async def test_a_unary_call_has_a_deadline_that_nobody_asked_for() -> None:
    remaining: list[float] = []
    echo = Echo()

    async def unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        remaining.append(context.time_remaining())
        return request

    echo.unary = unary  # type: ignore[method-assign]
    async with serving(echo.registration()) as server, open_channel(server.address, TOKEN) as channel:
        await EchoStub(channel).unary(b"x")
    assert 9 < remaining[0] < 11  # gRPC rounds up on the wire


async def test_an_unreachable_dependency_is_unavailable_and_no_leak() -> None:
    async def answer(text: str) -> str:
        async with open_channel("127.0.0.1:1") as channel:
            return str(await EchoStub(channel).unary(b"x"))

    async with echoing(answer) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.unary(b"x")
    error = service_error(caught.value)
    assert isinstance(error, errors.Unavailable)
    assert error.reason == "NODE_UNAVAILABLE"
    assert "127.0.0.1" not in error.message


async def test_leaving_a_stream_ends_its_handler_even_while_it_writes_and_is_nobodys_fault() -> None:
    echo = Echo()
    big = "x" * 1_000_000
    times = 20

    async def answer(text: str) -> str:
        if text == "last":  # however much of it gRPC buffers, a stream never ends by itself
            await asyncio.Event().wait()
        return big

    def statuses(lines: list[Any]) -> list[tuple[str, str]]:
        return [(line.get("status", line["event"]), line["log_level"]) for line in lines]

    echo.answer = answer
    with structlog.testing.capture_logs() as lines:
        async with serving(echo.registration()) as server, open_channel(server.address, TOKEN) as channel:
            for number in range(1, times + 1):
                async with streaming(EchoStub(channel).server_stream(b"w " * 100 + b"last")) as stream:
                    async for _ in stream:
                        break
                    await asyncio.sleep(number % 4 / 1000)  # it waits in a write, or not yet
                until = time.monotonic() + 5
                while len(lines) < number:
                    assert time.monotonic() < until, "the handler goes on without its client"
                    await asyncio.sleep(0.01)
                assert echo.stream_ended
    assert statuses(lines) == [("CANCELLED", "info")] * times


async def test_one_line_of_access_log_a_call_by_whose_fault_it_is() -> None:
    async def answer(text: str) -> str:
        match text:
            case "missing":
                raise errors.NotFound("workspace", "w-1")
            case "full":
                raise errors.Exhausted("TOO_MANY", "full", retry_after=2)
            case "bug":
                raise ValueError
            case _:
                return text

    with structlog.testing.capture_logs() as lines:
        async with echoing(answer) as stub:
            await stub.unary(b"fine")
            for text in ("missing", "full", "bug"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.unary(text.encode())
    calls = [(line["status"], line.get("reason"), line["log_level"]) for line in lines if line["event"] == "rpc"]
    assert calls == [
        ("OK", None, "info"),
        ("NOT_FOUND", "WORKSPACE_NOT_FOUND", "info"),
        ("RESOURCE_EXHAUSTED", "TOO_MANY", "warning"),
        ("INTERNAL", None, "error"),
    ]


@pytest.mark.parametrize(
    "error",
    [
        errors.FailedPrecondition(
            "CLONE_FAILED", "git's words " * 2000, "/a/long/path" * 400, metadata={"x": "ä" * 9000}
        ),
        errors.FailedPrecondition("CLONE_FAILED", "語" * 9000, "語" * 9000),
        errors.Invalid([(f"files[{number}].path", "語 is too long" * 9) for number in range(900)]),
        errors.NotFound("revision", "r" * 20_000),
        errors.NotFound("file", b"caf\xe9 ".decode("utf-8", "surrogateescape") * 9000),
        errors.Aborted("REF_MOVED", "moved\n" * 3000, expected="e" * 9000, actual="a" * 9000),
    ],
    ids=["words", "wide", "violations", "name", "bytes", "facts"],
)
async def test_an_error_with_much_to_say_still_arrives(error: errors.ServiceError) -> None:
    """gRPC replaces an answer whose metadata is larger than 8 KiB by one that says only that."""
    async with echoing(raising(error)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.unary(b"x")
    arrived = service_error(caught.value)
    assert (type(arrived), arrived.reason) == (type(error), error.reason)
    said = error.message.encode("utf-8", "replace").decode()
    assert arrived.message.startswith(said[:100])
    assert arrived.message.endswith(said[-100:])
    if isinstance(error, errors.Invalid) and isinstance(arrived, errors.Invalid):
        assert arrived.violations[0] == error.violations[0]
        assert arrived.violations[-1][1].endswith(" more")


class Forgetful:
    """Knows everybody until told otherwise."""

    may_revoke = True
    known = True
    away = False
    asked = 0

    def authorize(self, credentials: Credentials) -> None:
        pass

    async def identify(self, credentials: Credentials) -> Caller:
        self.asked += 1
        if self.away:
            raise errors.Unavailable("DATABASE_UNAVAILABLE", "away")
        if not self.known:
            raise errors.Unauthenticated("not any more", reason="TOKEN_REQUIRED")
        return Caller("somebody")


async def test_a_stream_ends_when_its_caller_is_let_in_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_RECHECK_SECONDS", 0.01)

    async def wait_for_the_second(word: str) -> str:
        if word == "second":
            await asyncio.Event().wait()
        return word

    echo, authenticator = Echo(wait_for_the_second), Forgetful()
    async with (
        serving(echo.registration(), authenticator=authenticator) as server,
        open_channel(server.address, TOKEN) as channel,
        streaming(EchoStub(channel).server_stream(b"first second")) as stream,
    ):
        assert await anext(aiter(stream)) == b"first"
        authenticator.away = True
        async with asyncio.timeout(20):
            while authenticator.asked < 5:
                await asyncio.sleep(0.01)
        assert not echo.stream_ended, "an outage shuts nobody out"
        authenticator.away, authenticator.known = False, False
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(20):
                await anext(aiter(stream))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert echo.stream_ended
