"""A service of four arities for the layers' tests: what it does is given by each test, as functions of text."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from services.common.rpc.server import Registration

NAME = "boatyard.test.v1.EchoService"


async def _echo(text: str) -> str:
    return text


class Echo:
    """Serves Unary, ServerStream, ClientStream and Both; `answer` makes every answer, and may raise."""

    def __init__(self, answer: Callable[[str], Awaitable[str]] = _echo) -> None:
        self.answer = answer
        self.stream_ended = False

    async def unary(self, request: bytes, context: Any) -> bytes:
        return (await self.answer(request.decode())).encode()

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            for word in request.decode().split():
                yield (await self.answer(word)).encode()
        finally:
            self.stream_ended = True

    async def client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return " ".join([await self.answer(request.decode()) async for request in requests]).encode()

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield (await self.answer(request.decode())).encode()

    def registration(self) -> Registration:
        return Registration(NAME, _add, self)


def _add(echo: Echo, server: grpc.aio.Server) -> None:
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(echo.server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(echo.client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(echo.both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


class EchoStub:
    """Calls Echo over any channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.unary = channel.unary_unary(f"/{NAME}/Unary")
        self.server_stream = channel.unary_stream(f"/{NAME}/ServerStream")
        self.client_stream = channel.stream_unary(f"/{NAME}/ClientStream")
        self.both = channel.stream_stream(f"/{NAME}/Both")
