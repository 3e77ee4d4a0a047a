"""What has had its time goes: snapshots and results, and some hours later what only they held on the disk."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from services.common.errors import ServiceError
from services.git.gitcmd import GitError
from services.git.keeping import Keeping
from services.git.results import Results
from services.git.snapshots import Snapshots

_INTERVAL_SECONDS: Final = 600.0
# As long as what nobody names any more is kept: an earlier compaction would find it too young.
_COMPACTED_AFTER: Final = timedelta(hours=12)
_COMPACTED_AT_ONCE: Final = 4

_log = structlog.get_logger()


class Expiry:
    """Sweeps, a bounded part at a time. What a crash cuts short is done by the next sweep."""

    def __init__(self, snapshots: Snapshots, keeping: Keeping, results: Results) -> None:
        self._snapshots = snapshots
        self._keeping = keeping
        self._results = results

    async def keep_swept(self) -> None:
        """Sweep every ten minutes, for ever; before that give a time to results that have none."""
        adopted = False
        while True:
            try:
                if not adopted:
                    await self._keeping.adopt(await asyncio.to_thread(self._results.stores))
                    adopted = True
                await self.sweep(datetime.now(UTC))
            except Exception:  # noqa: BLE001 - whatever it is, the next sweep may do better
                _log.exception("could not sweep")
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def sweep(self, now: datetime) -> list[str]:
        """Delete snapshots and results whose time is over, and pack anew the stores that have lost something long ago.

        Returns the ids of what went. What resists is logged, and left to a later sweep.
        """
        gone = [*await self._snapshots.sweep(now), *await self._keeping.sweep(now)]
        for repository_id in self._results.loosened(now - _COMPACTED_AFTER)[:_COMPACTED_AT_ONCE]:
            try:
                await self._results.compact(repository_id)
            except (ServiceError, GitError) as error:
                _log.warning("cannot compact a result store", repository_id=repository_id, error=str(error))
        return gone
