"""Connections to providers, which are kept for the next request."""

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door.http import CHUNK, Stream

_CONNECT_WITHIN_S: Final = 10.0
_IDLE_S: Final = 30.0
_MAX_IDLE: Final = 8
_VERSION: Final = "/v1"
_PORTS: Final = {"https": 443, "http": 80}
# After which a connection whose other end is gone without a word is found to be lost: a minute and a half.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


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
        """Return the path of a route there. Base URLs of OpenAI's wires say the version themselves (`/v1`)."""
        if wire in (ModelWire.RESPONSES, ModelWire.CHAT):
            return (self.prefix or _VERSION) + path.removeprefix(_VERSION)
        return self.prefix.removesuffix(_VERSION) + path


class Upstream:
    """The connections to one provider."""

    def __init__(self, provider: ModelProvider) -> None:
        """Raises ValueError for a base URL or certificates that are none."""
        self.place = Place.of(provider.base_url)
        self._ca = provider.ca
        self._idle: list[tuple[Stream, float]] = []

    def kept(self) -> Stream | None:
        """Return a connection that was used before and still seems to be open, if there is one."""
        while self._idle:
            stream, since = self._idle.pop()
            if stream.is_quiet and time.monotonic() - since < _IDLE_S:
                return stream
            stream.writer.close()
        return None

    async def connect(self) -> Stream:
        """Return a new connection. Raises OSError, TimeoutError."""
        place = self.place
        context = tls_context(self._ca) if place.scheme == "https" else None
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            reader, writer = await asyncio.open_connection(place.host, place.port, ssl=context, limit=CHUNK)
        end: socket.socket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                end.setsockopt(socket.IPPROTO_TCP, option, value)
        return Stream(reader, writer)

    def keep(self, stream: Stream) -> None:
        """Take back a connection whose answer has been read to its end."""
        if len(self._idle) < _MAX_IDLE and stream.is_quiet:
            self._idle.append((stream, time.monotonic()))
        else:
            stream.writer.close()

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
