"""Retries of calls: with growing pauses, a bound, and only while the call may still succeed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

T = TypeVar("T")

TRIES: Final = 5

_LONGEST_PAUSE_SECONDS: Final = 8.0

log = structlog.get_logger()


class CallFailed(Exception):
    """The server could not be called, or refused the call; the message says why. `tries` is how many were made."""

    def __init__(self, message: str, tries: int = 0) -> None:
        super().__init__(message)
        self.tries = tries


class TryFailed(Exception):
    """The next try may succeed; `retry_after` is in seconds, if the server said it."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


async def with_retries(
    call_id: str, attempt: Callable[[int], Awaitable[T]], *, first_pause_seconds: float, tries: int = TRIES
) -> T:
    """Make a call with retries: `attempt` gets the number of the try, from 1. Raises CallFailed."""
    pause = first_pause_seconds
    for number in range(1, tries + 1):
        try:
            return await attempt(number)
        except TryFailed as failed:
            log.info("a call is not taken", call_id=call_id, number=number, error=str(failed))
            if number == tries:
                last = f", at the last of {tries} tries" if tries > 1 else ""
                raise CallFailed(f"{failed}{last}", number) from failed
            wait = failed.retry_after
        if wait is None:
            wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that calls do not come back all at once
        await asyncio.sleep(wait)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")
