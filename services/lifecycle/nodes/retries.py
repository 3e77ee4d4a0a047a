"""Retries: a node service that restarts, is full or has just failed is asked again, within limits.

Every call of a job may be repeated: ids are the caller's, and what was done before is found to have been.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import structlog

from services.common.errors import (
    REQUEST_ID,
    DeadlineExceeded,
    Exhausted,
    RemoteFailure,
    ServiceError,
    Status,
    Unauthenticated,
    Unavailable,
)
from services.common.room import is_out_of_room
from services.common.rpc.status import service_error

T = TypeVar("T")

Pause = Callable[[float], Awaitable[None]]

_PASSING = {
    "WORKSPACE_HELD",  # by a sandbox of ours that is ending: on a busy machine that takes a while
    "WORKSPACE_NOT_MOUNTED",  # yet: its service is just starting again
}
_STATUSES_OF_ABSENCE = {
    Status.CANCELLED,  # by a server that stops
    Status.UNIMPLEMENTED,  # by one of an earlier version, which an upgrade is about to replace
}
_TOO_LARGE = "larger than max"
"""In gRPC's words about a message, which will not be smaller the next time."""

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 3.0
_LONGEST_WANTED_SECONDS = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How many seconds to retry while a node service is away, while it has no room, and while it fails internally.

    They count from the first failure of a kind: what a call did before it failed is none of its waiting.
    """

    away: float = 300.0
    full: float = 3600.0
    broken: float = 10.0

    def for_error(self, error: ServiceError, *, waits_for_room: bool = False) -> float | None:
        """Return how many seconds to retry after `error`; None when it is final."""
        if is_out_of_room(error):
            return self.full if waits_for_room else None
        if isinstance(error, Exhausted):
            return self._for_exhausted(error)
        # The cell's token is the cell's own: a service that does not take it was started with another one.
        if isinstance(error, Unavailable | DeadlineExceeded | Unauthenticated) or error.reason in _PASSING:
            return self.away
        if not isinstance(error, RemoteFailure):
            return None
        return self.away if error.status in _STATUSES_OF_ABSENCE else self.broken

    def _for_exhausted(self, error: Exhausted) -> float | None:
        if error.retry_after is not None:
            return self.full
        is_grpcs_own = error.quota is None and error.reason == Status.RESOURCE_EXHAUSTED
        return self.away if is_grpcs_own and _TOO_LARGE not in error.message else None


class NodeLost(ServiceError):
    """A node service was away, had no room or failed for longer than the RetryLimits."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, seconds: float, last: ServiceError) -> None:
        super().__init__("NODE_LOST", f"the cell's own services did not help for {seconds:.0f} s: {last.message}")


async def call_with_retries(
    call: Callable[[], Awaitable[T]],
    *,
    retry_limits: RetryLimits,
    pause: Pause,
    waits_for_room: Callable[[], bool] = lambda: False,
) -> T:
    """Call until there is a final answer. Raises its ServiceError, NodeLost, and whatever `pause` raises.

    A full disk is waited for while `waits_for_room` says so: what is to be kept is on this machine alone.
    """
    patience = _Patience(retry_limits)
    delay = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except (grpc.aio.AioRpcError, RemoteFailure) as raw:
            error = service_error(raw) if isinstance(raw, grpc.aio.AioRpcError) else raw
            patience.bear(error, raw, waits_for_room=waits_for_room())
            log.info("asking a node again", reason=error.reason, error=error.message, seconds=round(delay, 2))
        wanted = error.retry_after or 0.0 if isinstance(error, Exhausted) else 0.0
        seconds = max(delay, min(wanted, _LONGEST_WANTED_SECONDS))
        await pause(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - so that jobs do not come back all at once
        delay = min(delay * 2, _LONGEST_PAUSE_SECONDS)


class _Patience:
    """How long one call has failed: in the same way, as a service that was full may restart, and in all."""

    def __init__(self, retry_limits: RetryLimits) -> None:
        self._limits = retry_limits
        self._bound = self._first = self._since = 0.0

    def bear(self, error: ServiceError, raw: Exception, *, waits_for_room: bool) -> None:
        """Return when the call is to be made again after `error`. Raises it when it is final, or else NodeLost."""
        bound, now = self._limits.for_error(error, waits_for_room=waits_for_room), time.monotonic()
        if bound is None:
            raise error from raw
        if bound != self._bound:
            self._bound, self._since = bound, now
        self._first = self._first or now
        if now - self._since <= bound and now - self._first <= max(self._limits.full, bound):
            return
        if REQUEST_ID in error.metadata or is_out_of_room(error):  # the service's log has what it failed with
            raise error from raw
        raise NodeLost(bound, error) from raw
