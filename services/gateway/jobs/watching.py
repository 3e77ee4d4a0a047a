"""Waiting for what becomes of jobs and executions: subscribe, look, wait a little, look again."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from services.common.errors import Unavailable
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.model import JobView
from services.gateway.jobs.store import JobStore

POLL_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
OUTAGE_SECONDS = 60.0
"""How long a database that is away is waited for by those who watch."""

Seen = TypeVar("Seen")


async def looks(
    changes: Changes, job_id: str, look: Callable[[], Awaitable[Seen | None]]
) -> AsyncGenerator[Seen | None, None]:
    """Yield what each look at a job finds new, as soon as the job has changed; None is a heartbeat.

    A database that goes away while somebody watches is waited for. Raises Unavailable when it stays away, or is away
    from the beginning, and whatever `look` raises.
    """
    silent_since, looked = time.monotonic(), float("-inf")
    with changes.subscribed(job_id) as subscription:
        while True:
            try:
                seen, looked = await look(), time.monotonic()
            except Unavailable:
                if time.monotonic() - looked > OUTAGE_SECONDS:
                    raise
                seen = None
            if seen is not None or time.monotonic() - silent_since >= HEARTBEAT_SECONDS:
                silent_since = time.monotonic()
                yield seen
            await subscription.wait(POLL_SECONDS)


async def watch_job(store: JobStore, changes: Changes, job_id: str) -> AsyncGenerator[JobView | None, None]:
    """Yield a job as it is, and again at every change until it has ended; None is a heartbeat. Raises NotFound."""
    known = 0

    async def look() -> JobView | None:
        nonlocal known
        if await store.revision(job_id) == known:
            return None
        view = await store.job(job_id)
        known = view.revision
        return view

    async with aclosing(looks(changes, job_id, look)) as views:
        async for view in views:
            yield view
            if view is not None and view.state.is_final:
                return
