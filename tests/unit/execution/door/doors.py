"""A door in the test's own process."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.agent.providers import ModelProvider
from services.execution.door.reports import Reports
from services.execution.door.server import Door
from services.execution.door.tapes import NO_TAPES, Tapes

TOKEN = "the-execution-s-token"
HERE = ("127.0.0.0/8",)
"""Where the tests' providers are, which is not public."""


@dataclass
class Served:
    """A door that serves."""

    port: int
    reading: int
    troubles: list[dict | None] = field(default_factory=list)
    """What `reports` has left out: why models did not answer."""

    def reports(self) -> list[dict]:
        """What it has reported until now of what was used, and for people."""
        with contextlib.suppress(BlockingIOError):
            lines = [json.loads(line) for line in os.read(self.reading, 1 << 20).splitlines()]
            self.troubles += [line["trouble"] for line in lines if "trouble" in line]
            return [line for line in lines if "usage" in line or "note" in line]
        return []

    async def usage(self) -> dict:
        """Wait for the next report of what a request has used."""
        async with asyncio.timeout(20):
            while True:
                for report in self.reports():
                    if "usage" in report:
                        return report["usage"]
                await asyncio.sleep(0.005)

    async def talk(self, data: bytes) -> bytes:
        """Send bytes, and return all that comes until the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()

    async def ask(self, path: str, body: object = None, *, method: str = "POST", **headers: str) -> tuple[int, bytes]:
        """Make one request with the token, and return the status and the body."""
        answer = await self.talk(request(path, body, method=method, **headers))
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), unchunked(rest) if b"transfer-encoding: chunked" in head.lower() else rest


def request(path: str, body: object = None, *, method: str = "POST", **headers: str | None) -> bytes:
    """Write one request with the token; after its answer, the connection is closed."""
    sent = b"" if body is None else json.dumps(body).encode()
    fields = {"host": "x", "x-api-key": TOKEN, "connection": "close", "content-length": len(sent)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + sent


def unchunked(data: bytes) -> bytes:
    """Return the body within chunks, as far as it came."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


@contextlib.asynccontextmanager
async def serving(
    *providers: ModelProvider, patience_s: float = 0.0, tapes: Tapes = NO_TAPES, first_byte_s: float = 120.0
) -> AsyncIterator[Served]:
    """Serve these providers, which are waited for so long."""
    listening = socket.create_server(("127.0.0.1", 0))
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    door = Door(providers, TOKEN, Reports(writing), patience_s, tapes=tapes, first_byte_s=first_byte_s)
    task = asyncio.ensure_future(door.serve(listening))
    try:
        yield Served(listening.getsockname()[1], reading)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listening.close()
        os.close(reading)
        os.close(writing)
