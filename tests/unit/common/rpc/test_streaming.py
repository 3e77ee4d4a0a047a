"""Streams that are written and read at once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import pytest

from services.common import errors
from services.common.rpc.channel import open_channel
from services.common.rpc.streaming import conversing
from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo, EchoStub


async def words(*first: str, unending: bool = False) -> AsyncGenerator[bytes, None]:
    for word in first:
        yield word.encode()
    if unending:
        await asyncio.Event().wait()


async def test_a_refusal_arrives_whatever_is_written_meanwhile() -> None:
    async def refuse(_: str) -> str:
        raise errors.FailedPrecondition("NO_TERMINAL", "it has no terminal", "exec-1")

    async with serving(Echo(refuse).registration()) as server, open_channel(server.address, TOKEN) as channel:
        both = EchoStub(channel).both
        for _ in range(100):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async with conversing(both(), words(*"refused")) as answers:
                    _ = [answer async for answer in answers]
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_every_request_is_answered_and_its_end_ends_the_stream() -> None:
    async with (
        serving(Echo().registration()) as server,
        open_channel(server.address, TOKEN) as channel,
        conversing(EchoStub(channel).both(), words("a", "b", "c")) as answers,
    ):
        assert [answer async for answer in answers] == [b"a", b"b", b"c"]


async def test_nothing_waits_for_requests_once_the_call_is_over() -> None:
    async def only_once(word: str) -> str:
        if word == "b":
            raise errors.Unavailable("DRAINING", "it stops")
        return word

    before = asyncio.all_tasks()
    async with serving(Echo(only_once).registration()) as server, open_channel(server.address, TOKEN) as channel:
        async with aclosing(words("a", "b", "c", unending=True)) as requests:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async with conversing(EchoStub(channel).both(), requests) as answers:
                    _ = [answer async for answer in answers]
        async with (
            aclosing(words("a", unending=True)) as requests,
            conversing(EchoStub(channel).both(), requests) as answers,
        ):
            assert await anext(answers) == b"a"
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True), 60)


async def test_requests_that_fail_end_the_call_and_the_reader_is_told_why() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise OSError("the terminal is gone")

    async with (
        serving(Echo().registration()) as server,
        open_channel(server.address, TOKEN) as channel,
        conversing(EchoStub(channel).both(), broken()) as answers,
    ):
        with pytest.raises(OSError, match="the terminal is gone"):
            _ = [answer async for answer in answers]
