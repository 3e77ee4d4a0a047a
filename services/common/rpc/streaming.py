"""Reads and writes streams so that they end with their reader, and end as the server says."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import grpc

Call = TypeVar("Call", bound=grpc.aio.Call)
Request = TypeVar("Request")
Answer = TypeVar("Answer")


@asynccontextmanager
async def streaming(call: Call) -> AsyncIterator[Call]:
    """Cancel a call at the end of the block.

        async with streaming(stub.WatchEvents(request)) as events:
            async for event in events: ...

    A stream that is merely abandoned continues for ever on both sides: gRPC no longer collects it (STYLE §4).
    """
    try:
        yield call
    finally:
        call.cancel()


@asynccontextmanager
async def conversing(
    call: grpc.aio.StreamStreamCall[Request, Answer], requests: AsyncIterator[Request]
) -> AsyncIterator[AsyncIterator[Answer]]:
    """Write requests to a call, each once the one before was answered; cancel the call at the end of the block.

        async with conversing(stub.AttachExecution(), requests) as answers:
            async for answer in answers: ...

    A write to a stream that the server is just refusing makes gRPC end the call with an INTERNAL of its own in place of
    the refusal, and whoever waits for an answer does not write. The call is started without the requests, because gRPC
    leaves a generator of them waiting when the call ends. Raises what the requests raise.
    """
    answered = asyncio.Event()
    async with streaming(call):
        writer = asyncio.create_task(_write_all(call, requests, answered))
        try:
            async with aclosing(_answers(call, answered, writer)) as answers:
                yield answers
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)


async def _answers(
    call: AsyncIterable[Answer], answered: asyncio.Event, writer: asyncio.Task[None]
) -> AsyncGenerator[Answer, None]:
    try:
        async for answer in call:
            answered.set()
            yield answer
    except asyncio.CancelledError:
        if writer.done() and not writer.cancelled():
            writer.result()  # it has cancelled the call: raises why
        raise


async def _write_all(
    call: grpc.aio.StreamStreamCall[Request, Answer], requests: AsyncIterator[Request], answered: asyncio.Event
) -> None:
    try:
        async for request in requests:
            answered.clear()
            await call.write(request)
            await answered.wait()
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # the call is over, and its reader is told
    except Exception:
        call.cancel()
        raise
