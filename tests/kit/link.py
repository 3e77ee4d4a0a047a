"""A link between machines that can be cut, or can drop data silently: a TCP proxy in a thread of this process."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any


class Link:
    """Forwards connections to `target` (host:port). While it is cut, nothing passes, and nobody can connect.

    While it is silent, nothing passes either, but nobody notices: connections stay open, and new ones are accepted.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._gates: set[asyncio.Event] = set()
        self._is_silent = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link")
        self._thread.start()
        self.address = "127.0.0.1:0"
        self.mend()

    def mend(self) -> None:
        """Accept connections at the same address as before, and forward what was held back."""
        self._run(self._open())

    def cut(self) -> None:
        """End every connection, and accept no more."""
        self._run(self._close())

    def silence(self) -> None:
        """Forward nothing until it is mended, without ending any connection."""
        self._run(self._close_gates())

    def forget(self) -> None:
        """Drop all data of existing connections for ever, but forward new ones, like a firewall that lost its state."""
        self._run(self._forget())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=20)

    async def _close_gates(self) -> None:
        self._is_silent = True
        for gate in self._gates:
            gate.clear()

    async def _forget(self) -> None:
        for gate in self._gates:
            gate.clear()
        self._gates.clear()

    async def _open(self) -> None:
        self._is_silent = False
        for gate in self._gates:
            gate.set()
        if self._server is not None:
            return
        host, _, port = self.address.rpartition(":")
        self._server = await asyncio.start_server(self._accept, host, int(port))
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    async def _close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        gate = asyncio.Event()
        self._gates.add(gate)
        if not self._is_silent:
            gate.set()
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._forward(reader, writer, gate)
        finally:
            self._connections.discard(task)
            self._gates.discard(gate)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        host, _, port = self._target.rpartition(":")
        onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
        pumps = [
            asyncio.ensure_future(_pump(reader, onward_writer, gate)),
            asyncio.ensure_future(_pump(onward_reader, writer, gate)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            onward_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            await gate.wait()
            writer.write(data)
            await writer.drain()
    await gate.wait()  # while it is silent, the end of the stream is held back too


@contextlib.contextmanager
def linked(target: str) -> Iterator[Link]:
    """Yield a link to an address."""
    link = Link(target)
    try:
        yield link
    finally:
        link.close()
