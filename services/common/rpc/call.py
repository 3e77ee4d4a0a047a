"""One call to a service, as the layers between gRPC and its handler see it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.rpc import status_pb2

from services.common.errors import Status

Context = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID_METADATA_KEY = "boatyard-request-id"

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")


@dataclass(slots=True)
class RpcCall:
    """One incoming call. `status`, `reason` and `failure`, which is what the caller is told, are None unless it fails.

    `request` is the request, or the first message of its stream; `answer` is set when there is one, and no stream.
    `receive` waits for the request and parses it, where there is one: nobody has before the caller is known. It raises
    Invalid, DeadlineExceeded. It does not refer to the call, which then is free as soon as it ends.
    `counted_by` is whose calls it is counted with, as in `Caller`: for unknown callers their address. `is_quiet` is
    True for a call of a flood that has been logged already.
    """

    method: str
    context: Context
    answers_once: bool
    metadata: Mapping[str, str | bytes]
    request_id: str = ""
    status: Status | None = None
    reason: str | None = None
    failure: status_pb2.Status | None = None
    request: Any = None
    answer: Any = None
    receive: "Callable[[], Awaitable[Any]] | None" = None
    counted_by: str | None = None
    is_quiet: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def is_open(self) -> bool:
        """True when it needs no token: health always, reflection where it is served at all."""
        return self.method.startswith(_OPEN)

    async def read(self) -> None:
        """Set the request, where there is one."""
        if self.receive is not None:
            self.request = await self.receive()

    def text(self, key: str) -> str | None:
        """Return one value of the call's metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


Layer = Callable[[RpcCall], AbstractAsyncContextManager[None]]
Inspect = Callable[[RpcCall], Awaitable[None]]
"""Inspects a call's request before it is served, and may refuse it."""

Response = TypeVar("Response")
Screen = Callable[[Any], Any]
"""Returns the part of a response, or of one of its messages, that the caller may read. Does not change it."""


def show_all(answer: Response) -> Response:
    """Hide nothing, for services where every caller may read the whole response."""
    return answer


async def let_pass(call: RpcCall) -> None:
    """Inspect nothing, for services where authentication is enough."""
