"""Reads and writes streams: one is cancelled when its reader stops, and written to only once it was accepted."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

Call = TypeVar("Call", bound=grpc.aio.Call)
Request = TypeVar("Request")


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


async def once_accepted(requests: AsyncIterator[Request], accepted: asyncio.Event) -> AsyncGenerator[Request, None]:
    """Yield the first request at once, and the others after `accepted`, which the caller sets at the first response.

    A write to a stream that the server is just refusing can end the call with gRPC's own INTERNAL ("Internal error from
    Core") in place of the refusal.
    """
    async for request in requests:
        yield request
        await accepted.wait()
