"""Calls that are forwarded to the gateways of other cells, in the name of the caller."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from services.common.errors import ServiceError, Unavailable, peer_unavailable
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY
from services.common.rpc.call import Context
from services.common.rpc.channel import open_channel
from services.common.rpc.draining import Draining
from services.common.rpc.status import service_error
from services.common.rpc.streaming import conversing, streaming
from services.common.rpc.tls import ClientTls
from services.gateway.routing.forwarding import forwarded_metadata
from services.gateway.routing.wire import Rpc
from services.gateway.values.cells import Cell

CELL_UNAVAILABLE: Final = "CELL_UNAVAILABLE"
NO_ANSWER: Final = (Unavailable, grpc.aio.AioRpcError)
"""The errors of a cell that does not answer, and of this cell when one of its node services does not."""

LONGEST_SECONDS: Final = 300.0
"""How long a call with one response may take, forwarded or not: time to remove a large tree, or to measure them all."""
# Any other status is the peer's own refusal, which the caller gets. With one of these it does not answer, or does not
# answer as a peer of this cell: it may have been restarted with another secret, or have another version.
_UNREACHABLE: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}


def cell_unavailable(cell_id: str, host: str = "") -> Unavailable:
    """Return the error for callers while the only cell that has what they ask for does not answer."""
    where = f" on {host}" if host else ""
    message = f"cell {cell_id}{where}, which has what was asked for, does not answer now"
    return peer_unavailable(CELL_UNAVAILABLE, message, {"cell_id": cell_id, "host": host})


class Peers:
    """Keeps a channel to each other cell that was asked; `aclose` closes them."""

    def __init__(
        self, cell_id: str, services: Sequence[ServiceDescriptor], draining: Draining, tls: ClientTls | None
    ) -> None:
        self._cell_id = cell_id
        self._services = services
        self._draining = draining
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def aclose(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()

    async def response(self, cell: Cell, rpc: Rpc, request: Any, context: Context) -> Any:
        """Return a cell's response. Raises what the cell refuses the call with, or Unavailable (CELL_UNAVAILABLE)."""
        method = self._method(cell, rpc, rpc.response.FromString)
        allowed = min(context.time_remaining() or LONGEST_SECONDS, LONGEST_SECONDS)
        try:
            return await method(request, timeout=allowed, metadata=self._metadata(cell))
        except grpc.aio.AioRpcError as error:
            raise _refusal(error, cell) from error

    async def responses(self, cell: Cell, rpc: Rpc, request: Any) -> AsyncGenerator[bytes, None]:
        """Yield a cell's responses as they come, serialized.

        Raises what the cell refuses the call with, or Unavailable (CELL_UNAVAILABLE, DRAINING).
        """
        async with self._stream(cell, rpc, request) as responses:
            while True:
                try:
                    async with self._draining.interrupting():
                        response = await anext(responses, None)
                except grpc.aio.AioRpcError as error:
                    raise _refusal(error, cell) from error
                if response is None:
                    return
                yield response

    @asynccontextmanager
    async def _stream(self, cell: Cell, rpc: Rpc, request: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        method, metadata = self._method(cell, rpc), self._metadata(cell)
        if rpc.request_streaming:
            async with conversing(method(metadata=metadata), request) as responses:
                yield responses
        else:
            async with streaming(method(request, metadata=metadata)) as call:
                yield aiter(call)

    def _method(self, cell: Cell, rpc: Rpc, read: Callable[[bytes], Any] | None = None) -> Any:
        channel = self._channels.get(cell.address)
        if channel is None:
            try:
                channel = open_channel(cell.address, services=self._services, tls=self._tls)
            except Unavailable as error:  # the socket of a cell on this machine that is gone
                raise cell_unavailable(cell.cell_id, cell.host) from error
            self._channels[cell.address] = channel
        sides = ("stream" if is_stream else "unary" for is_stream in (rpc.request_streaming, rpc.response_streaming))
        return getattr(channel, "_".join(sides))(rpc.path, lambda message: message.SerializeToString(), read)

    def _metadata(self, cell: Cell) -> Sequence[tuple[str, str]]:
        token = (AUTHORIZATION_METADATA_KEY, f"Bearer {cell.peer_token}")
        return (token, *forwarded_metadata(self._cell_id))


def _refusal(error: grpc.aio.AioRpcError, cell: Cell) -> ServiceError:
    refusal = service_error(error)
    is_explained = error.code() is grpc.StatusCode.UNAVAILABLE and refusal.reason != refusal.status
    return refusal if is_explained or error.code() not in _UNREACHABLE else cell_unavailable(cell.cell_id, cell.host)
