"""Services as processes of their own, which a benchmark may kill and restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from grpc.aio import Channel

from services.common.rpc.channel import open_channel
from tests.kit.mounts import unmount_below
from tests.kit.services import Services


@asynccontextmanager
async def running(services: Services, *names: str) -> AsyncIterator[list[Channel]]:
    """Start node services, yield a channel to each, and end them after the block.

    Raises RuntimeError with their logs if they do not start.
    """
    token = services.home.cell_token()
    try:
        for name in names:
            services.start(name, BOATYARD_LOG_LEVEL="ERROR")
        try:
            await asyncio.gather(*map(services.serving, names))
        except TimeoutError:
            raise RuntimeError("\n".join([f"not all of {names} serve:", *map(services.log, names)])) from None
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(open_channel(services.address(name), token)) for name in names]
    finally:
        for name in list(services.processes):
            services.end(name)
        unmount_below(services.root)
