"""Retries: a node service that restarts or is full is waited for, within limits."""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import structlog

from services.common.errors import DeadlineExceeded, Exhausted, RemoteFailure, ServiceError, Status, Unavailable
from services.common.rpc.status import service_error

T = TypeVar("T")

Pause = Callable[[float], Awaitable[None]]

_PASSING = {
    "WORKSPACE_HELD",  # by a sandbox of ours that is ending: on a busy machine that takes a while
    "WORKSPACE_NOT_MOUNTED",  # yet: its service is just starting again
}
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 3.0
_LONGEST_WANTED_SECONDS = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How many seconds to retry while a node service is away, and while it has no room."""

    away: float = 300.0
    full: float = 3600.0

    def for_error(self, error: ServiceError) -> float | None:
        """Return how many seconds to retry after `error`; None when it is final."""
        if isinstance(error, Exhausted) and error.retry_after is not None:
            return self.full
        if isinstance(error, Unavailable | DeadlineExceeded) or error.reason in _PASSING:
            return self.away
        if isinstance(error, RemoteFailure) and error.status is Status.CANCELLED:  # by a server that stops
            return self.away
        return None


class NodeLost(ServiceError):
    """A node service was away, or had no room, for longer than the RetryLimits."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, seconds: float, last: ServiceError) -> None:
        super().__init__("NODE_LOST", f"the cell's own services did not help for {seconds:.0f} s: {last.message}")


async def call_with_retries(call: Callable[[], Awaitable[T]], *, retry_limits: RetryLimits, pause: Pause) -> T:
    """Call until there is a final answer. Raises its ServiceError, NodeLost, and whatever `pause` raises."""
    started, delay = time.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as raw:
            error = service_error(raw)
            bound = retry_limits.for_error(error)
            if bound is None:
                raise error from raw
            if time.monotonic() - started > bound:
                raise NodeLost(bound, error) from raw
            log.info("asking a node again", reason=error.reason, error=error.message, seconds=round(delay, 2))
        wanted = error.retry_after or 0.0 if isinstance(error, Exhausted) else 0.0
        seconds = max(delay, min(wanted, _LONGEST_WANTED_SECONDS))
        await pause(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - so that jobs do not come back all at once
        delay = min(delay * 2, _LONGEST_PAUSE_SECONDS)
