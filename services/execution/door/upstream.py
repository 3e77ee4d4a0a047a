"""Connections to providers, which are kept for the next request."""

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from services.agent.providers import ModelProvider, ModelWire, path_there
from services.common.addresses import is_public, unwrapped
from services.execution.door.http import CHUNK, Stream

_CONNECT_WITHIN_S: Final = 10.0
_MAX_IDLE: Final = 8
_PORTS: Final = {"https": 443, "http": 80}
# After which a connection whose other end is gone without a word is found to be lost: a minute and a half.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class AddressNotAllowedError(Exception):
    """A provider's name leads to no address that may be asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a provider is, from its base URL; `prefix` is a path without a slash at its end."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def of(cls, url: str) -> "Place":
        """Parse a base URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https URL")
        return cls(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], parts.path.rstrip("/"))

    @property
    def authority(self) -> bytes:
        """What `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}").encode()

    def path(self, wire: ModelWire, path: str) -> str:
        """Return the path of a route there."""
        return path_there(wire, self.prefix, path)


class Upstream:
    """The connections to one provider."""

    def __init__(self, provider: ModelProvider) -> None:
        """Raises ValueError for a base URL, certificates or networks that are none."""
        self.place = Place.of(provider.base_url)
        self._networks = tuple(map(ip_network, provider.allowed_addresses))
        self._ca = provider.ca
        self._idle: list[tuple[Stream, float]] = []

    async def kept(self, within_s: float) -> Stream | None:
        """Return a connection that was used within so many seconds and still seems to be open, if there is one."""
        while self._idle and time.monotonic() - self._idle[-1][1] < within_s:
            stream, _ = self._idle.pop()
            if await stream.is_quiet():
                return stream
            stream.writer.close()
        return None

    async def connect(self) -> Stream:
        """Return a new connection. Raises AddressNotAllowedError, OSError, TimeoutError."""
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            reader, writer = await self._connected(await self._addresses())
        end: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                end.setsockopt(socket.IPPROTO_TCP, option, value)
        return Stream(reader, writer)

    async def _addresses(self) -> list[IPv4Address | IPv6Address]:
        """Return the addresses that may be asked: public ones, and those that the operator allows.

        Raises AddressNotAllowedError, OSError.
        """
        loop, place = asyncio.get_running_loop(), self.place
        try:
            found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{place.host} is no name of a host") from error
        resolved = list(dict.fromkeys(ip_address(str(end[0]).partition("%")[0]) for *_, end in found))
        admitted = list(filter(self._admits, resolved))
        if not admitted:
            listed = ", ".join(map(str, resolved[:3]))
            raise AddressNotAllowedError(f"{place.host} is {listed}: not public, and not in BOATYARD_PROVIDER_ALLOW")
        return admitted

    def _admits(self, address: IPv4Address | IPv6Address) -> bool:
        both = (address, unwrapped(address))
        return is_public(address) or any(one in network for network in self._networks for one in both)

    async def _connected(
        self, addresses: list[IPv4Address | IPv6Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first that answers: to these, not to the name, which may lead elsewhere by now."""
        is_tls = self.place.scheme == "https"
        connect = partial(
            asyncio.open_connection,
            port=self.place.port,
            ssl=tls_context(self._ca) if is_tls else None,
            server_hostname=self.place.host if is_tls else None,
            limit=CHUNK,
        )
        for address in addresses[:-1]:
            with contextlib.suppress(OSError):
                return await connect(str(address))
        return await connect(str(addresses[-1]))

    def keep(self, stream: Stream) -> None:
        """Take back a connection whose answer has been read to its end."""
        self._idle.append((stream, time.monotonic()))
        if len(self._idle) > _MAX_IDLE:  # the oldest goes
            self._idle.pop(0)[0].writer.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop()[0].writer.close()


@functools.cache
def tls_context(ca: str) -> ssl.SSLContext:
    """Return what certificates are checked by: PEM, or those of the system. Takes 20 ms the first time."""
    context = ssl.create_default_context(cadata=ca or None)
    context.set_alpn_protocols(["http/1.1"])
    return context
