"""The proxy: CONNECT for everything that brings its own encryption, and plain http requests as they are.

Programs that know no proxy come to it too, because their connections are brought here (see `capture`): what such a
connection's own address is, is what its program wanted. That program has been told that it is connected before we know
whether it may be, and whether anybody answers there; if not, its connection is reset.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from services.execution.egress.names import MadeUpAddresses
from services.execution.egress.policy import EgressPolicy, RefusedError
from services.sandbox.host_patterns import normalized_host

_HEAD_WITHIN_S: Final = 30.0
_HEAD_BYTES: Final = 64 * 1024
_CONNECT_WITHIN_S: Final = 15.0
_ACCEPT_AGAIN_S: Final = 0.1
_CHUNK: Final = 64 * 1024
_MAX_CLIENTS: Final = 256
_MAX_OPEN: Final = 2 * _MAX_CLIENTS
"""With those that are to be told that there are too many."""
# Headers between a client and its proxy, which are not passed on.
_HOP_BY_HOP: Final = ("proxy-", "connection:", "keep-alive:")


class _NoRequestError(Exception):
    """A client closed its connection, or sent too much, before the end of a head."""


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
        self._clients: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Serve connections until cancelled."""
        listening.setblocking(False)
        while True:
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:  # it is gone already, or there is no memory for it
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            task = asyncio.create_task(self._serve(client))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
            await asyncio.sleep(0)  # the call above does not wait while there is somebody to accept

    async def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                if len(self._clients) > _MAX_OPEN:
                    _reset_when_closed(client)
                    return
                address, port = client.getsockname()
                if ip_address(address).is_loopback:
                    await self._answer_request(client)
                else:
                    await self._pass_on(client, IPv4Address(address), port)
            except (OSError, _NoRequestError, TimeoutError):
                pass  # either end is gone, or what came is not a request: there is nobody to answer

    async def _answer_request(self, client: socket.socket) -> None:
        async with asyncio.timeout(_HEAD_WITHIN_S):
            head, rest = await _read_head(client)
        request = parse(head)
        if request is None:
            await _answer(client, "400 Bad Request", "This is a proxy: CONNECT host:port, or GET http://host/path")
            return
        if len(self._clients) > _MAX_CLIENTS:
            await _answer(client, "503 Service Unavailable", f"More than {_MAX_CLIENTS} connections are open")
            return
        try:
            onward = await self._connect(request.host, request.port)
        except RefusedError as refused:
            await _answer(client, "403 Forbidden", f"Boatyard: {refused}", refused.reason)
            return
        except (OSError, TimeoutError) as error:
            await _answer(
                client, "502 Bad Gateway", f"Boatyard: {request.host}:{request.port} does not answer: {error}"
            )
            return
        with onward:
            loop = asyncio.get_running_loop()
            if not request.first:
                await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
            await loop.sock_sendall(onward, request.first + rest)
            await relay(client, onward)

    async def _pass_on(self, client: socket.socket, address: IPv4Address, port: int) -> None:
        """Connect a client that wanted this address to it, or to the name that the address was made up for."""
        if len(self._clients) > _MAX_CLIENTS:
            _reset_when_closed(client)
            return
        try:
            onward = await self._connect(self._addresses.name_of(address) or str(address), port)
        except (RefusedError, OSError, TimeoutError):
            _reset_when_closed(client)
            return
        with onward:
            await relay(client, onward)

    async def _connect(self, host: str, port: int) -> socket.socket:
        """Connect to a host, if it is allowed. Raises RefusedError, OSError, TimeoutError."""
        failure: OSError | TimeoutError = OSError("it has no address")
        for address in await self._policy.addresses(host, port):
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            onward = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    await asyncio.get_running_loop().sock_connect(onward, (str(address), port))
            except (OSError, TimeoutError) as error:
                onward.close()
                failure = error
            except BaseException:
                onward.close()
                raise
            else:
                onward.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return onward
        raise failure


async def relay(one: socket.socket, other: socket.socket) -> None:
    """Copy bytes in both directions until both ends have finished, or either is lost, as the other then sees."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_relay_one_way(one, other))
            group.create_task(_relay_one_way(other, one))
    except* OSError:
        for end in (one, other):
            _reset_when_closed(end)


async def _relay_one_way(source: socket.socket, sink: socket.socket) -> None:
    loop, buffer = asyncio.get_running_loop(), memoryview(bytearray(_CHUNK))
    while count := await loop.sock_recv_into(source, buffer):
        await loop.sock_sendall(sink, buffer[:count])
        await asyncio.sleep(0)  # neither call waits while both ends keep up, and there are others
    sink.shutdown(socket.SHUT_WR)


async def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """Read a request's head, and what came with it. Raises _NoRequestError, OSError."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = await asyncio.get_running_loop().sock_recv(client, _CHUNK)
        received += chunk
        if not chunk or len(received) > _HEAD_BYTES:
            raise _NoRequestError
    head, end, rest = received.partition(b"\r\n\r\n")
    return head + end, rest


def _reset_when_closed(client: socket.socket) -> None:
    """Have the other end of a connection see an error, and not an end, when this one is closed."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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


async def _answer(client: socket.socket, status: str, text: str, reason: str = "") -> None:
    body = f"{text}\n".encode()
    extra = f"X-Boatyard-Reason: {reason}\r\n" if reason else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{extra}Content-Length: {len(body)}\r\n"
    await asyncio.get_running_loop().sock_sendall(client, f"{head}Connection: close\r\n\r\n".encode() + body)
