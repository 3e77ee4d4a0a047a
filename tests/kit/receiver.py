"""A server for webhooks on loopback; it checks signatures by the specification, without the product's code."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def check(self, secret: str = SECRET) -> None:
        """Check the signature as https://github.com/standard-webhooks/standard-webhooks specifies it."""
        timestamp = self.headers["webhook-timestamp"]
        assert abs(time.time() - int(timestamp)) < 60
        content = self.message_id.encode() + b"." + timestamp.encode() + b"." + self.body
        key = base64.b64decode(secret.split("_", 1)[1])
        expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        assert self.headers["webhook-signature"].split(" ") == [f"v1,{expected}"]


@dataclass(frozen=True)
class Reply:
    """A status, headers and a body; with `is_silent` there is no reply for as long as the server runs."""

    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_silent: bool = False


class Receiver:
    """Gives the replies one by one, and then repeats the last."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self.replies = list(replies)
        self.received: list[Received] = []
        self.url = ""
        self.port = 0
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hooks?a=b"
        try:
            yield self
        finally:
            self._closing.set()
            server.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def until(self, count: int, timeout: float = 30) -> None:
        """Wait until `count` requests have come."""
        async with asyncio.timeout(timeout):
            while len(self.received) < count:
                await asyncio.sleep(0.01)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        assert head[0].startswith("POST ")
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        self.received.append(Received(head[0].split(" ")[1], headers, body))
        if reply.is_silent:
            await self._closing.wait()
            return
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in reply.headers.items())]
        if "content-length" not in reply.headers:
            lines.append(f"content-length: {len(reply.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body)
        await writer.drain()


@asynccontextmanager
async def receiver(*replies: Reply) -> AsyncIterator[Receiver]:
    """Serve inside of the block; without `replies` every request gets a 204."""
    async with Receiver(replies or [Reply()]).serving() as serving:
        yield serving
