"""The proxy: CONNECT for everything that brings its own encryption, and requests by http as they are."""

import asyncio
import contextlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.execution.egress.policy import Policy, RefusedError
from services.sandbox.host_patterns import normalized_host

_HEAD_WITHIN_S = 30.0
_CONNECT_WITHIN_S = 15.0
_CHUNK = 64 * 1024
_AT_ONCE = 256
_OWN = ("proxy-", "connection:", "keep-alive:")  # what is between a client and its proxy, and goes no further


@dataclass(frozen=True, slots=True)
class Call:
    """What a client wants: a connection to a host and port, and what is sent there first (nothing for CONNECT)."""

    host: str
    port: int
    first: bytes


class Proxy:
    """Serves clients in the sandbox, so many at once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._clients = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._clients += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # either end is gone, or says what is no request: there is nobody to answer
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
        call = parse(head)
        if call is None:
            await _answer(writer, "400 Bad Request", "This is a proxy: CONNECT host:port, or GET http://host/path")
            return
        if self._clients > _AT_ONCE:
            await _answer(writer, "503 Service Unavailable", f"More than {_AT_ONCE} connections are open")
            return
        try:
            onward = await self.connect(call)
        except RefusedError as refused:
            await _answer(writer, "403 Forbidden", f"Boatyard: {refused}", refused.reason)
            return
        except (OSError, TimeoutError) as error:
            await _answer(writer, "502 Bad Gateway", f"Boatyard: {call.host}:{call.port} does not answer: {error}")
            return
        if call.first:
            onward[1].write(call.first)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await relay((reader, writer), onward)

    async def connect(self, call: Call) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to where a call may go. Raises RefusedError, OSError, TimeoutError."""
        trouble: OSError | TimeoutError = OSError("it has no address")
        for address in await self._policy.addresses(call.host, call.port):
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    return await asyncio.open_connection(str(address), call.port)
            except (OSError, TimeoutError) as error:
                trouble = error
        raise trouble


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(one: Ends, other: Ends) -> None:
    """Carry bytes both ways until both have said all, or either is lost."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_carry(one[0], other[1]))
            group.create_task(_carry(other[0], one[1]))
    except* OSError:
        pass  # one of the two went away: so do we
    finally:
        other[1].close()
        with contextlib.suppress(OSError):
            await other[1].wait_closed()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def parse(head: bytes) -> Call | None:
    """Read the head of a request to a proxy; None where it is none."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return None
    method, target, version = parts
    try:
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = url.hostname, url.port
    except ValueError:
        return None
    if not host:
        return None
    if method == "CONNECT":
        return None if port is None else Call(normalized_host(host), port, b"")
    if url.scheme != "http":
        return None
    path = target.partition("://")[2].removeprefix(url.netloc)
    path = path if path.startswith("/") else f"/{path}"
    kept = [line for line in lines[1:] if line and not line.lower().startswith((*_OWN, "host:"))]
    place = url.netloc.rpartition("@")[2]
    request = [f"{method} {path} {version}", f"Host: {place}", *kept, "Connection: close", "", ""]
    return Call(normalized_host(host), port or 80, "\r\n".join(request).encode("latin-1"))


async def _answer(writer: asyncio.StreamWriter, status: str, text: str, reason: str = "") -> None:
    body = f"{text}\n".encode()
    named = f"X-Boatyard-Reason: {reason}\r\n" if reason else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{named}Content-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()
