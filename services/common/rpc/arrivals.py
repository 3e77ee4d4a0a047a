"""Waits for requests, and not for ever: a caller may begin a call and never send what it asks for.

One timer watches all waits. Nearly every request is there already, and a timer for each cost a tenth of a call.
"""

import asyncio
from typing import Final, cast

import grpc

from services.common.errors import DeadlineExceeded, Invalid
from services.common.rpc.call import Context

REQUEST_SECONDS: Final = 60.0
"""How long a call's one request may take to arrive, and up to a quarter more: 4 MiB at 600 kbit/s."""


class Arrivals:
    """The requests that one server waits for."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def request(self, context: Context) -> bytes:
        """Return the request of a call that has one. Raises DeadlineExceeded, Invalid."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._watch(scope)
                message = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(f"the request did not arrive within {REQUEST_SECONDS:g} s") from None
        finally:
            self._waiting.pop(scope, None)
        if message is grpc.aio.EOF:
            raise Invalid([("request", "is missing")])
        return cast("bytes", message)

    def _watch(self, scope: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[scope] = loop.time() + REQUEST_SECONDS
        if self._timer is None:
            self._timer = loop.call_later(REQUEST_SECONDS / 4, self._end_old, loop)

    def _end_old(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for scope, ends in self._waiting.items():
            if ends <= now:
                scope.reschedule(now)
        self._timer = loop.call_later(REQUEST_SECONDS / 4, self._end_old, loop) if self._waiting else None
