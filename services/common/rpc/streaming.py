"""Reads a stream so that it is cancelled when its reader stops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

Call = TypeVar("Call", bound=grpc.aio.Call)


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
