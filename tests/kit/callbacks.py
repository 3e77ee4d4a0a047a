"""A user's gRPC callback server on loopback: it gives its replies one by one, and then repeats the last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from boatyard.hook.v1 import callback_pb2 as pb
from boatyard.hook.v1 import callback_pb2_grpc

Reply = pb.CallHookResponse | grpc.StatusCode | None
"""A message, a status, or None for no reply for as long as the caller waits."""

TOKEN = "a-token-of-the-test-s-own"


@dataclass
class CallbackServer(callback_pb2_grpc.HookCallbackServiceServicer):
    replies: list[Reply]
    calls: list[pb.CallHookRequest] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, count: int, timeout: float = 30) -> None:
        """Wait until `count` calls have come."""
        async with asyncio.timeout(timeout):
            while len(self.calls) < count:
                await asyncio.sleep(0.01)

    async def CallHook(  # noqa: N802 - the contract's name
        self, request: pb.CallHookRequest, context: grpc.aio.ServicerContext
    ) -> pb.CallHookResponse:
        self.calls.append(request)
        self.tokens.append(str(dict(context.invocation_metadata() or ()).get("authorization", "")))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is None:
            await asyncio.Event().wait()
        if isinstance(reply, grpc.StatusCode):
            await context.abort(reply, "not today")
        assert isinstance(reply, pb.CallHookResponse)
        return reply


@asynccontextmanager
async def callback_server(
    *replies: Reply, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[CallbackServer]:
    """Serve inside of the block; without `replies` every call gets an empty response."""
    server, servicer = grpc.aio.server(), CallbackServer([*(replies or [pb.CallHookResponse()])])
    callback_pb2_grpc.add_HookCallbackServiceServicer_to_server(servicer, server)
    if credentials is None:
        servicer.port = server.add_insecure_port("127.0.0.1:0")
    else:
        servicer.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(grace=0)
