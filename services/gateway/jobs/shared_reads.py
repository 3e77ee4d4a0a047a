"""Reads jobs for all watchers of this gateway together: what many want to know at the same time is read once.

So watchers cost the database and the event loop what there is to tell, and not how many they are (decision 52).
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from services.common.batching import Batches
from services.common.errors import NotFound
from services.gateway.jobs.store import JobStore
from services.gateway.values.jobs import JobFilter, JobSummary, JobView

PAUSE_SECONDS: Final = 0.2
"""The least time from a look at all jobs to the next one; it is ten times what the look took, up to two seconds."""
_LONGEST_PAUSE_SECONDS: Final = 2.0

OVERLAP_MICROSECONDS: Final = 60_000_000
"""How long before a look a job may have ended that only the next look sees: the time a transaction takes to commit."""

WATCHERS: Final = "watchers"
"""Whose turns at the database are used: together those of one caller."""
_AT_ONCE: Final = 100
_VIEWS_AT_ONCE: Final = 32

Look: TypeAlias = tuple[int, Mapping[str, JobSummary]]
"""When it was, in microseconds by the database's clock, and the jobs, newest first."""
_Question: TypeAlias = tuple[JobFilter, int | None]
_Known: TypeAlias = tuple[str, int]


class SharedReads:
    """What watchers read. Each answer is of a moment after it was asked for."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._next_look = 0.0
        self._looks = Batches(self._look_at_all, turns_of=WATCHERS)
        self._jobs = Batches(self._newer, most=_VIEWS_AT_ONCE, turns_of=WATCHERS)
        self._briefs = Batches(self._brief, most=_AT_ONCE, turns_of=WATCHERS)

    async def look(self, filters: JobFilter, looked_at: int) -> Look:
        """Return all jobs that match and are live, or may have ended since the last look (0: all that have ended)."""
        # Full minutes, so that watchers ask the same. That an ended job is seen twice does no harm.
        since = (looked_at // OVERLAP_MICROSECONDS - 1) * OVERLAP_MICROSECONDS if looked_at else None
        await asyncio.sleep(self._next_look - time.monotonic())
        found = await self._looks.answer((filters, since))
        assert found is not None  # noqa: S101 - every question has an answer
        return found

    async def newer(self, job_id: str, revision: int) -> JobView | None:
        """Return a job unless this is still its revision, the number that grows with its changes. Raises NotFound."""
        found = await self._jobs.answer((job_id, revision))
        if found is None:
            raise NotFound("job", job_id)
        return found if isinstance(found, JobView) else None

    async def brief(self, job_ids: Iterable[str]) -> list[JobView]:
        """Return those of the jobs that exist, in brief, in the order of `job_ids`."""
        views = await asyncio.gather(*map(self._briefs.answer, job_ids))
        return [view for view in views if view is not None]

    async def _look_at_all(self, questions: Collection[_Question]) -> Mapping[_Question, Look]:
        began = time.monotonic()
        found = {question: await self._store.summaries(*question) for question in questions}
        ended = time.monotonic()
        self._next_look = ended + min(max(PAUSE_SECONDS, 10 * (ended - began)), _LONGEST_PAUSE_SECONDS)
        return found

    async def _newer(self, known: Collection[_Known]) -> Mapping[_Known, JobView | int]:
        """Answer with the revisions that are still right, and with the jobs of others."""
        revisions, views = await self._store.changed(known)
        found: dict[_Known, JobView | int] = {}
        for job_id, revision in known:
            if revisions.get(job_id) == revision:
                found[job_id, revision] = revision
            elif job_id in views:
                found[job_id, revision] = views[job_id]
        return found

    async def _brief(self, job_ids: Collection[str]) -> Mapping[str, JobView]:
        views: Sequence[JobView] = await self._store.brief(list(job_ids))
        return {view.spec.job_id: view for view in views}
