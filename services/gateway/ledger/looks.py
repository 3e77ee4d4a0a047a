"""How everything is watched: subscribe, look, wait a little, look again."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from services.common.errors import Unavailable
from services.gateway.ledger.notifier import JobNotifier

POLL_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
OUTAGE_SECONDS = 60.0
"""How long watchers wait for a database that is away."""

Seen = TypeVar("Seen")


async def looks(
    notifier: JobNotifier,
    job_id: str,
    look: Callable[[], Awaitable[Seen | None]],
    has_more: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Seen | None, None]:
    """Yield what each look at a job finds new, as soon as the job has changed; None is a heartbeat.

    With ALL in place of a job, each look is at all jobs. While `has_more` returns True, the next look comes at once.
    When the database goes away meanwhile, this waits for it. Raises Unavailable when it stays away, or is away from the
    beginning, and whatever `look` raises.
    """
    silent_since, looked_at = time.monotonic(), float("-inf")
    with notifier.subscribe(job_id) as subscription:
        while True:
            try:
                seen, looked_at = await look(), time.monotonic()
            except Unavailable:
                if time.monotonic() - looked_at > OUTAGE_SECONDS:
                    raise
                seen = None
            if seen is not None or time.monotonic() - silent_since >= HEARTBEAT_SECONDS:
                silent_since = time.monotonic()
                yield seen
            if not has_more():
                await subscription.wait(POLL_SECONDS)
