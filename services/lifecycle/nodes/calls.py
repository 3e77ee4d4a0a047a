"""How a job calls a node service: with its fence, again while that may help, and not once its lease is lost."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from services.common.fence import Fence
from services.common.rpc.channel import Metadata, fence_metadata
from services.lifecycle.nodes.retries import Pause, RetryLimits, call_with_retries

T = TypeVar("T")

SHORT_SECONDS = 10.0
LONG_SECONDS = 590.0
"""Copies, takes and pushes: just below what a server allows."""


@dataclass(frozen=True, slots=True)
class JobCalls:
    """The calls of one job. Refusals are raised as ServiceError, and NodeLost after the RetryLimits.

    While `waits_for_room` says so, a full disk is waited for too: what an agent has left is on this machine alone.
    """

    fence: Fence
    retry_limits: RetryLimits
    pause: Pause
    check: Callable[[], None]
    waits_for_room: Callable[[], bool]

    @property
    def metadata(self) -> Metadata:
        """What each call carries."""
        return fence_metadata(self.fence)

    async def call(self, method: Callable[..., Awaitable[T]], request: object, seconds: float = SHORT_SECONDS) -> T:
        """Make a unary call whose each try may take so long."""

        async def once() -> T:
            return await method(request, timeout=seconds, metadata=self.metadata)

        return await self.persist(once)

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call of any arity again while that may help."""

        async def checked() -> T:
            self.check()
            return await call()

        return await call_with_retries(
            checked, retry_limits=self.retry_limits, pause=self.pause, waits_for_room=self.waits_for_room
        )
