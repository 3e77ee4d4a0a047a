"""Retention: results and snapshots are removed when they have expired, and later what only they held on the disk.

A result is also kept as long as the tree exists that it was taken from: the workspace of a job that has not ended, or
one that is kept. So a job that waits, for a person or for a free place, finds its result however long it waits, and
this service need not know about jobs.
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
from services.git.stores.artifacts import ArtifactStore
from services.git.stores.results import ResultStores
from services.git.stores.snapshots import Snapshots

_AT_ONCE: Final = 100
# A result that is still in use, or cannot be removed, is tried again after this time, and does not block others.
_LOOK_AGAIN: Final = timedelta(hours=1)
_INTERVAL_SECONDS: Final = 600.0
# Unreachable objects are kept this long (results._UNNAMED_KEPT): an earlier compaction would find them too young.
_COMPACTED_AFTER: Final = timedelta(hours=12)
_COMPACTED_AT_ONCE: Final = 4
_REFS: Final = "refs/results/"

_log = structlog.get_logger()


class ResultRetention:
    """Takes results, each under its name, and removes them when they have expired."""

    def __init__(self, records: ResultRecords, results: ResultStores, keep_for: timedelta) -> None:
        self._records = records
        self._results = results
        self._keep_for = keep_for
        self._turns = WeakValueDictionary[tuple[str, str], asyncio.Lock]()
        self.expired = 0

    async def take(
        self, repository_id: str, result_id: str, spec: TakeSpec, borrowed: tuple[Path, ...]
    ) -> ResultCommit:
        """Take a tree as a result. `borrowed` and the errors are those of ResultStores.take."""
        async with self._turn(repository_id, result_id):
            # Recorded before the ref is made: a ref without a record would stay for ever.
            until = datetime.now(UTC) + self._keep_for
            await self._records.save(ResultRecord(repository_id, result_id, spec.tree.path, until))
            return await self._results.take(repository_id, _REFS + result_id, spec, borrowed)

    async def counts(self) -> dict[str, int]:
        """Return the number of results of each repository that has any."""
        return await self._records.counts()

    async def adopt(self, repository_ids: Sequence[str]) -> int:
        """Record an expiry, counted from now, for results without a record; return how many there were."""
        until = datetime.now(UTC) + self._keep_for
        adopted = 0
        for repository_id in repository_ids:
            names = await self._results.names(repository_id, _REFS)
            adopted += await self._records.adopt([ResultRecord(repository_id, name, None, until) for name in names])
        return adopted

    async def remove_expired(self, now: datetime) -> list[str]:
        """Remove some of the results that have expired; return their ids."""
        deleted = []
        for record in await self._records.expired(now, _AT_ONCE):
            try:
                if await self._remove_unless_in_use(record):
                    deleted.append(record.result_id)
                    continue
            except (ServiceError, GitError, OSError) as error:
                _log.warning("cannot delete a result", result_id=record.result_id, error=str(error))
            await self._records.postpone(record, now + _LOOK_AGAIN)
        if deleted:
            _log.info("deleted expired results", count=len(deleted), first=deleted[0])
        self.expired += len(deleted)
        return deleted

    async def _remove_unless_in_use(self, record: ResultRecord) -> bool:
        """Remove a result, first the ref, then the record, unless its tree exists; return whether it was removed."""
        async with self._turn(record.repository_id, record.result_id):
            current = await self._records.find(record.repository_id, record.result_id)
            if current != record:  # taken again meanwhile
                return False
            if record.tree is not None and await asyncio.to_thread(record.tree.exists):
                return False
            await self._results.remove_ref(record.repository_id, _REFS + record.result_id)
            await self._records.remove(record.repository_id, record.result_id)
            return True

    def _turn(self, repository_id: str, result_id: str) -> asyncio.Lock:
        """Return the lock between taking a result and removing it."""
        return self._turns.setdefault((repository_id, result_id), asyncio.Lock())


class RetentionLoop:
    """Removes what has expired, a bounded number at a time. What a crash interrupts is done in the next round."""

    def __init__(
        self, snapshots: Snapshots, retention: ResultRetention, results: ResultStores, artifacts: ArtifactStore
    ) -> None:
        self._snapshots = snapshots
        self._retention = retention
        self._results = results
        self._artifacts = artifacts

    async def run_retention(self) -> None:
        """Remove what has expired every ten minutes, until cancelled; first record results that have no record."""
        adopted = False
        while True:
            try:
                if not adopted:
                    await self._retention.adopt(await asyncio.to_thread(self._results.stores))
                    adopted = True
                await self.remove_expired(datetime.now(UTC))
            except Exception:  # noqa: BLE001 - whatever it is, the next round may succeed
                _log.exception("could not remove what has expired")
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def remove_expired(self, now: datetime) -> list[str]:
        """Delete what has expired, and compact the stores that lost their latest ref long enough ago.

        Returns the ids of what was deleted. What cannot be deleted is logged, and tried again later.
        """
        expiring = (self._snapshots, self._retention, self._artifacts)
        deleted = [removed for each in expiring for removed in await each.remove_expired(now)]
        for repository_id in self._results.stores_that_lost_refs(now - _COMPACTED_AFTER)[:_COMPACTED_AT_ONCE]:
            try:
                await self._results.compact(repository_id)
            except (ServiceError, GitError) as error:
                _log.warning("cannot compact a result store", repository_id=repository_id, error=str(error))
        return deleted
