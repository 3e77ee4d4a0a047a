"""The proxy: CONNECT for everything that brings its own encryption, and plain http requests as they are.

Programs that know no proxy come to it too, because their connections are brought here (see `capture`): what such a
connection's own address is, is what its program wanted. That program has been told that it is connected before we know
whether it may be, and whether anybody answers there; if not, its connection is reset.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from services.execution.egress.names import MadeUpAddresses
from services.execution.egress.policy import EgressPolicy, RefusedError
from services.sandbox.host_patterns import normalized_host

_HEAD_WITHIN_S = 30.0
_CONNECT_WITHIN_S = 15.0
_CHUNK = 64 * 1024
_MAX_CLIENTS = 256
_MAX_OPEN = 2 * _MAX_CLIENTS
"""With those that are to be told that there are too many."""
# Headers between a client and its proxy, which are not passed on.
_HOP_BY_HOP = ("proxy-", "connection:", "keep-alive:")


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """What a client asks for: a connection to a host and port, and what to send there first (nothing for CONNECT)."""

    host: str
    port: int
    first: bytes


class Proxy:
    """Serves clients in the sandbox, up to a maximum at once: those that ask a proxy, and those that know of none."""

    def __init__(self, policy: EgressPolicy, addresses: MadeUpAddresses) -> None:
        self._policy = policy
        self._addresses = addresses
        self._clients = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._clients += 1
        try:
            if self._clients > _MAX_OPEN:
                _reset(writer)
                return
            address, port = writer.get_extra_info("sockname")
            if ip_address(address).is_loopback:
                await self._serve((reader, writer))
            else:
                await self._pass_on((reader, writer), IPv4Address(address), port)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # either end is gone, or what came is not a request: there is nobody to answer
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, client: Ends) -> None:
        reader, writer = client
        async with asyncio.timeout(_HEAD_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
        request = parse(head)
        if request is None:
            await _answer(writer, "400 Bad Request", "This is a proxy: CONNECT host:port, or GET http://host/path")
            return
        if self._clients > _MAX_CLIENTS:
            await _answer(writer, "503 Service Unavailable", f"More than {_MAX_CLIENTS} connections are open")
            return
        try:
            onward = await self._connect(request.host, request.port)
        except RefusedError as refused:
            await _answer(writer, "403 Forbidden", f"Boatyard: {refused}", refused.reason)
            return
        except (OSError, TimeoutError) as error:
            await _answer(
                writer, "502 Bad Gateway", f"Boatyard: {request.host}:{request.port} does not answer: {error}"
            )
            return
        if request.first:
            onward[1].write(request.first)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await relay(client, onward)

    async def _pass_on(self, client: Ends, address: IPv4Address, port: int) -> None:
        """Connect a client that wanted this address to it, or to the name that the address was made up for."""
        if self._clients > _MAX_CLIENTS:
            _reset(client[1])
            return
        try:
            onward = await self._connect(self._addresses.name_of(address) or str(address), port)
        except (RefusedError, OSError, TimeoutError):
            _reset(client[1])
            return
        await relay(client, onward)

    async def _connect(self, host: str, port: int) -> Ends:
        """Connect to a host, if it is allowed. Raises RefusedError, OSError, TimeoutError."""
        failure: OSError | TimeoutError = OSError("it has no address")
        for address in await self._policy.addresses(host, port):
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    return await asyncio.open_connection(str(address), port)
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that its other end sees an error, and not an end."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def relay(one: Ends, other: Ends) -> None:
    """Copy bytes in both directions until both ends have finished, or either is lost."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_relay_one_way(one[0], other[1]))
            group.create_task(_relay_one_way(other[0], one[1]))
    except* OSError:
        pass  # one end was lost: close the other
    finally:
        other[1].close()
        with contextlib.suppress(OSError):
            await other[1].wait_closed()


async def _relay_one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def parse(head: bytes) -> ProxyRequest | None:
    """Parse the head of a request to a proxy; return None when it is not one."""
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
        return None if port is None else ProxyRequest(normalized_host(host), port, b"")
    if url.scheme != "http":
        return None
    path = target.partition("://")[2].removeprefix(url.netloc)
    path = path if path.startswith("/") else f"/{path}"
    headers = [line for line in lines[1:] if line and not line.lower().startswith((*_HOP_BY_HOP, "host:"))]
    authority = url.netloc.rpartition("@")[2]
    request = [f"{method} {path} {version}", f"Host: {authority}", *headers, "Connection: close", "", ""]
    return ProxyRequest(normalized_host(host), port or 80, "\r\n".join(request).encode("latin-1"))


async def _answer(writer: asyncio.StreamWriter, status: str, text: str, reason: str = "") -> None:
    body = f"{text}\n".encode()
    extra = f"X-Boatyard-Reason: {reason}\r\n" if reason else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{extra}Content-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()
