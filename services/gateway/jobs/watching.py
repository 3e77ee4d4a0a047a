"""Waiting for what becomes of jobs and executions: subscribe, look, wait a little, look again."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from services.common.errors import Unavailable
from services.gateway.jobs.store import JobStore
from services.gateway.ledger.notifier import ALL, JobNotifier
from services.gateway.values.jobs import JobFilter, JobSummary, JobView

POLL_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
OUTAGE_SECONDS = 60.0
"""How long a database that is away is waited for by those who watch."""

PAUSE_SECONDS = 0.2
"""How long after a look at all jobs the next one comes, at least; and ten times what the look took."""

OVERLAP_MICROSECONDS = 60_000_000
"""How long before a look a job may have ended that is seen only now: how long a transaction may take to be written."""

_AT_ONCE = 100

Seen = TypeVar("Seen")


async def looks(
    notifier: JobNotifier,
    job_id: str,
    look: Callable[[], Awaitable[Seen | None]],
    has_more: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Seen | None, None]:
    """Yield what each look at a job finds new, as soon as the job has changed; None is a heartbeat.

    With ALL in place of a job each look is at all of them. While `has_more` says so, the next look comes at once.
    A database that goes away while somebody watches is waited for. Raises Unavailable when it stays away, or is away
    from the beginning, and whatever `look` raises.
    """
    silent_since, looked = time.monotonic(), float("-inf")
    with notifier.subscribe(job_id) as subscription:
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
            if not has_more():
                await subscription.wait(POLL_SECONDS)


async def watch_job(store: JobStore, notifier: JobNotifier, job_id: str) -> AsyncGenerator[JobView | None, None]:
    """Yield a job as it is, and again at every change until it has ended; None is a heartbeat. Raises NotFound."""
    known = 0

    async def look() -> JobView | None:
        nonlocal known
        if await store.revision(job_id) == known:
            return None
        view = await store.job(job_id)
        known = view.revision
        return view

    async with aclosing(looks(notifier, job_id, look)) as views:
        async for view in views:
            yield view
            if view is not None and view.state.is_final:
                return


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """A job that is new or has changed, and from where to watch on when it has been told. None is a heartbeat."""

    view: JobView | None
    position: int


async def watch_jobs(
    store: JobStore, notifier: JobNotifier, filters: JobFilter, position: int
) -> AsyncGenerator[JobUpdate, None]:
    """Yield all jobs that match, a heartbeat, and then those that change.

    From a position on the first ones are those that live, and those that have ended since.
    """
    watch = _Watch(store, filters, position)
    watched_from = position
    async with aclosing(looks(notifier, ALL, watch.look, watch.has_more)) as batches:
        async for views in batches:
            for view in views or (None,):
                yield JobUpdate(view, watch.position if view is None else watched_from)
            watched_from = watch.position


class _Watch:
    """What one watcher knows. A position is a time by the database's clock, of a look all of which has been told.

    What is kept is the revision of each job that lives or has just ended, so that each look tells what differs; nothing
    is told that is not read from the database, so that a change is seen whoever makes it, and whether or not it is
    heard of.
    """

    def __init__(self, store: JobStore, filters: JobFilter, position: int) -> None:
        self._store = store
        self._filters = filters
        self._known: dict[str, JobSummary] = {}
        self._to_tell: deque[str] = deque()
        self._looked_at = position
        self._next_look = 0.0
        self._caught_up = False
        self.position = position

    def has_more(self) -> bool:
        """Whether the next look has something to tell for certain."""
        return bool(self._to_tell)

    async def look(self) -> list[JobView | None] | None:
        """Return the next jobs to tell, the newest first, and a heartbeat when the first ones are all told."""
        if not self._to_tell:
            await self._compare()
        ids = list(islice(self._to_tell, _AT_ONCE))
        views: list[JobView | None] = [*await self._store.brief(ids)] if ids else []
        for _ in ids:
            self._to_tell.popleft()
        if not self._to_tell:
            self.position = self._looked_at
            if not self._caught_up:
                self._caught_up = True
                views.append(None)
        return views or None

    async def _compare(self) -> None:
        """Find out what differs from what was told."""
        await asyncio.sleep(self._next_look - time.monotonic())
        begun = time.monotonic()
        since = self._looked_at - OVERLAP_MICROSECONDS if self._looked_at else None
        at, summaries = await self._store.summaries(self._filters, since)
        self._next_look = time.monotonic() + max(PAUSE_SECONDS, 10 * (time.monotonic() - begun))
        self._to_tell.extend(job_id for job_id, summary in summaries.items() if self._known.get(job_id) != summary)
        # What lived and does not match any more, by its state, is told as it now is, where it is still there.
        self._to_tell.extend(
            job_id for job_id, summary in self._known.items() if summary.lives and job_id not in summaries
        )
        self._known, self._looked_at = summaries, at
