"""How long results are kept: until their time is over, and the tree that they were taken of is gone.

The tree is the workspace of a job that has not ended, or whose workspace is kept. So a job that waits, for a person or
a free place, finds its result however long that takes, and this service need not know any job.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import structlog

from services.common.errors import ServiceError
from services.git.gitcmd import GitError
from services.git.model import ResultCommit, ResultRecord, TakeSpec
from services.git.store import ResultRecords
from services.git.stores.results import ResultStores
from services.git.stores.snapshots import Snapshots

_AT_ONCE: Final = 100
# What is still in use, or resists, is looked at again after this time, and keeps nobody else from going.
_LOOK_AGAIN: Final = timedelta(hours=1)
_INTERVAL_SECONDS: Final = 600.0
# As long as what nobody names any more is kept: an earlier compaction would find it too young.
_COMPACTED_AFTER: Final = timedelta(hours=12)
_COMPACTED_AT_ONCE: Final = 4
_REFS: Final = "refs/results/"

_log = structlog.get_logger()


class ResultRetention:
    """Takes results, each under its name, and lets go of them."""

    def __init__(self, store: ResultRecords, results: ResultStores, keep_for: timedelta) -> None:
        self._store = store
        self._results = results
        self._keep_for = keep_for
        self._turns = WeakValueDictionary[tuple[str, str], asyncio.Lock]()
        self.expired = 0

    async def take(
        self, repository_id: str, result_id: str, spec: TakeSpec, borrowed: tuple[Path, ...]
    ) -> ResultCommit:
        """Take a tree as a result. `borrowed`, and what is raised: as Results.take."""
        async with self._turn(repository_id, result_id):
            # Recorded before the ref is made: a ref that nobody knows of would stay for ever.
            until = datetime.now(UTC) + self._keep_for
            await self._store.save(ResultRecord(repository_id, result_id, spec.tree.path, until))
            return await self._results.take(repository_id, _REFS + result_id, spec, borrowed)

    async def counts(self) -> dict[str, int]:
        """Return how many results each repository has that has any."""
        return await self._store.counts()

    async def adopt(self, repository_ids: Sequence[str]) -> int:
        """Give those results a time that nothing is known of, as of now; return how many."""
        until = datetime.now(UTC) + self._keep_for
        adopted = 0
        for repository_id in repository_ids:
            names = await self._results.names(repository_id, _REFS)
            adopted += await self._store.adopt([ResultRecord(repository_id, name, None, until) for name in names])
        return adopted

    async def remove_expired(self, now: datetime) -> list[str]:
        """Let go of some of those whose time is over; return which."""
        gone = []
        for record in await self._store.expired(now, _AT_ONCE):
            try:
                if await self._let_go(record):
                    gone.append(record.result_id)
                    continue
            except (ServiceError, GitError, OSError) as error:
                _log.warning("cannot delete a result", result_id=record.result_id, error=str(error))
            await self._store.postpone(record, now + _LOOK_AGAIN)
        if gone:
            _log.info("deleted results whose time was over", count=len(gone), first=gone[0])
        self.expired += len(gone)
        return gone

    async def _let_go(self, record: ResultRecord) -> bool:
        """Remove a result, the ref before the record, unless its tree is there; returns whether it is gone."""
        async with self._turn(record.repository_id, record.result_id):
            current = await self._store.find(record.repository_id, record.result_id)
            if current != record:  # taken anew meanwhile
                return False
            if record.tree is not None and await asyncio.to_thread(record.tree.exists):
                return False
            await self._results.remove_ref(record.repository_id, _REFS + record.result_id)
            await self._store.remove(record.repository_id, record.result_id)
            return True

    def _turn(self, repository_id: str, result_id: str) -> asyncio.Lock:
        """Return the lock that orders those who take a result, and who lets it go."""
        return self._turns.setdefault((repository_id, result_id), asyncio.Lock())


class RetentionLoop:
    """Sweeps, a bounded part at a time. What a crash cuts short is done by the next sweep."""

    def __init__(self, snapshots: Snapshots, retention: ResultRetention, results: ResultStores) -> None:
        self._snapshots = snapshots
        self._retention = retention
        self._results = results

    async def run_retention(self) -> None:
        """Sweep every ten minutes, for ever; before that give a time to results that have none."""
        adopted = False
        while True:
            try:
                if not adopted:
                    await self._retention.adopt(await asyncio.to_thread(self._results.stores))
                    adopted = True
                await self.remove_expired(datetime.now(UTC))
            except Exception:  # noqa: BLE001 - whatever it is, the next sweep may do better
                _log.exception("could not sweep")
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def remove_expired(self, now: datetime) -> list[str]:
        """Delete snapshots and results whose time is over, and pack anew the stores that have lost something long ago.

        Returns the ids of what went. What resists is logged, and left to a later sweep.
        """
        gone = [*await self._snapshots.remove_expired(now), *await self._retention.remove_expired(now)]
        for repository_id in self._results.stores_that_lost_refs(now - _COMPACTED_AFTER)[:_COMPACTED_AT_ONCE]:
            try:
                await self._results.compact(repository_id)
            except (ServiceError, GitError) as error:
                _log.warning("cannot compact a result store", repository_id=repository_id, error=str(error))
        return gone
