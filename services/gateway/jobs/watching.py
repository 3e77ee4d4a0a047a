"""Watches jobs and executions."""

from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice

from services.gateway.jobs.shared_reads import SharedReads
from services.gateway.ledger.looks import looks
from services.gateway.ledger.notifier import ALL, JobNotifier
from services.gateway.values.jobs import JobFilter, JobSummary, JobView

_AT_ONCE = 100


async def watch_job(reads: SharedReads, notifier: JobNotifier, job_id: str) -> AsyncGenerator[JobView | None, None]:
    """Yield a job as it is, and again at every change until it has ended; None is a heartbeat. Raises NotFound."""
    last_revision = 0

    async def look() -> JobView | None:
        nonlocal last_revision
        view = await reads.newer(job_id, last_revision)
        if view is not None:
            last_revision = view.revision
        return view

    async with aclosing(looks(notifier, job_id, look)) as views:
        async for view in views:
            yield view
            if view is not None and view.state.is_final:
                return


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """A job that is new or has changed, and the position to continue from after it. A `view` of None is a heartbeat."""

    view: JobView | None
    position: int


async def watch_jobs(
    reads: SharedReads, notifier: JobNotifier, filters: JobFilter, position: int
) -> AsyncGenerator[JobUpdate, None]:
    """Yield all jobs that match, a heartbeat, and then those that change.

    From a position on, the first ones are those that are live, and those that have ended since.
    """
    watch = _Watch(reads, filters, position)
    watched_from = position
    async with aclosing(looks(notifier, ALL, watch.look, watch.has_more)) as batches:
        async for views in batches:
            for view in views or (None,):
                yield JobUpdate(view, watch.position if view is None else watched_from)
            watched_from = watch.position


class _Watch:
    """The state of one watcher. A position is the time, by the database's clock, of a look that has been sent in full.

    It keeps the revision of each job that is live or has just ended, so that each look can send what differs. Whatever
    is sent is read from the database, so a change is seen whoever makes it, with or without a notification.
    """

    def __init__(self, reads: SharedReads, filters: JobFilter, position: int) -> None:
        self._reads = reads
        self._filters = filters
        self._known: Mapping[str, JobSummary] = {}
        self._unsent: deque[str] = deque()
        self._looked_at = position
        self._caught_up = False
        self.position = position

    def has_more(self) -> bool:
        """Return True when the next look is certain to have something to send."""
        return bool(self._unsent)

    async def look(self) -> list[JobView | None] | None:
        """Return the next jobs to send, newest first, and a heartbeat when all of the first ones are sent."""
        if not self._unsent:
            await self._compare()
        ids = list(islice(self._unsent, _AT_ONCE))
        views: list[JobView | None] = [*await self._reads.brief(ids)] if ids else []
        for _ in ids:
            self._unsent.popleft()
        if not self._unsent:
            self.position = self._looked_at
            if not self._caught_up:
                self._caught_up = True
                views.append(None)
        return views or None

    async def _compare(self) -> None:
        """Find out what differs from what was sent."""
        at, summaries = await self._reads.look(self._filters, self._looked_at)
        self._unsent.extend(job_id for job_id, summary in summaries.items() if self._known.get(job_id) != summary)
        # A live job whose state no longer matches is sent as it is now, if it still exists.
        self._unsent.extend(
            job_id for job_id, summary in self._known.items() if summary.is_live and job_id not in summaries
        )
        self._known, self._looked_at = summaries, at
