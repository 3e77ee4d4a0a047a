"""What listens for agents answers at once."""

import asyncio
import socket

from services.execution.netns import LOOPBACK, listening


async def test_small_pieces_are_not_held_back() -> None:
    """The kernel waits 40 ms for more, unless it is told not to; asyncio tells it for sockets that say they are TCP."""
    options: asyncio.Queue[int] = asyncio.Queue()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        options.put_nowait(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listening(LOOPBACK, 0)
    server = await asyncio.start_server(accept, sock=listener)
    async with server:
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await options.get() == 1
        writer.close()
        await writer.wait_closed()
