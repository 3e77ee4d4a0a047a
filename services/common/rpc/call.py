"""One call to a service, as those see it who stand between gRPC and its handler."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from services.common.errors import Status

Context = grpc.aio.ServicerContext[Any, Any]

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")


@dataclass(slots=True)
class RpcCall:
    """One incoming call. `status` and `reason` are None while it goes well.

    `request` is what is asked, or the first message of its stream; `answer` is there when one was made, and no stream.
    `is_quiet`: it is one of a flood, of which enough was told.
    """

    method: str
    context: Context
    answers_once: bool
    metadata: Mapping[str, str | bytes]
    request_id: str = ""
    status: Status | None = None
    reason: str | None = None
    request: Any = None
    answer: Any = None
    is_quiet: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def is_open(self) -> bool:
        """True when it needs no token: health always, reflection where it is served at all."""
        return self.method.startswith(_OPEN)

    def text(self, key: str) -> str | None:
        """Return one value of the call's metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


Layer = Callable[[RpcCall], AbstractAsyncContextManager[None]]
Inspect = Callable[[RpcCall], Awaitable[None]]
"""Looks at a call's request before it is served, and may refuse it."""

Response = TypeVar("Response")
Screen = Callable[[Any], Any]
"""Returns what the caller being served may read of an answer, or of one message of it, and changes neither."""


def show_all(answer: Response) -> Response:
    """Screen nothing, where whoever may ask may read the answer."""
    return answer


async def let_pass(call: RpcCall) -> None:
    """Inspect nothing, where being let in at all is enough."""
