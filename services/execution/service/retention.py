"""Retention: the logs of ended executions are packed, and after a time, or when they are too large, removed.

The record of an execution stays, and says that its events are gone. Whoever has begun to read a log can read it to its
end, because a removed file lives as long as it is open.
"""

import asyncio
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from services.common.room import is_out_of_room
from services.execution import eventlog
from services.execution.model import Execution
from services.execution.rundir.directory import RunDirectory
from services.execution.service.store import ExecutionStore

_PAGE = 500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long logs stay unpacked, how long they are kept in total, and how many bytes of them."""

    pack_after: timedelta
    keep: timedelta
    max_bytes: int


class Retention:
    """Keeps the directory of runs within its limits."""

    def __init__(self, store: ExecutionStore, runs: Path, limits: RetentionLimits) -> None:
        self._store = store
        self._runs = runs
        self._limits = limits

    async def run_retention(self, every_s: float) -> None:
        """Remove what has expired, every `every_s` seconds, until cancelled."""
        while True:
            try:
                await self.remove_expired()
            except Exception:  # a full disk or a locked database will pass: the next round does the rest
                log.exception("old events cannot be removed yet")
            await asyncio.sleep(every_s)

    async def remove_expired(self) -> None:
        """Pack what ended some time ago; remove what is too old, and then the oldest until the rest fits."""
        ended = await self._ended()
        now = datetime.now(UTC)
        sizes: dict[str, int] = {}
        for execution in ended:
            run = RunDirectory(self._runs / execution.execution_id)
            if _age(execution, now) >= self._limits.pack_after:
                await _pack(run)
            sizes[execution.execution_id] = await asyncio.to_thread(_size, run.path)
        total_bytes = sum(sizes.values())
        for execution in ended:
            if _age(execution, now) < self._limits.keep and total_bytes <= self._limits.max_bytes:
                break
            await self._remove(execution.execution_id)
            total_bytes -= sizes[execution.execution_id]
        await self._finish_removals({execution.execution_id for execution in ended})

    async def _ended(self) -> list[Execution]:
        """Return the executions that have ended and still have their events, the earliest end first."""
        ended: list[Execution] = []
        while page := await self._store.untrimmed(after=ended[-1] if ended else None, count=_PAGE):
            ended += page
        return ended

    async def _finish_removals(self, untrimmed: set[str]) -> None:
        """Remove the directories that a killed service had begun to remove; those of `untrimmed` are not looked at."""
        for directory in await asyncio.to_thread(lambda: list(self._runs.iterdir())):
            known = None if directory.name in untrimmed else await self._store.find(directory.name)
            if known is not None and known.events_trimmed:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _remove(self, execution_id: str) -> None:
        await self._store.set_trimmed(execution_id)  # first, so that nobody expects events that are half removed
        await asyncio.to_thread(shutil.rmtree, self._runs / execution_id, ignore_errors=True)
        log.info("events removed", execution_id=execution_id)


async def _pack(run: RunDirectory) -> None:
    try:
        await asyncio.to_thread(eventlog.pack, run.events)
    except OSError as error:
        if not is_out_of_room(error):
            raise
        # It stays as it is, and what is below is more use to a full disk: the removal of what has expired.
        log.info("events are packed when the disk has room", execution_id=run.path.name)


def _age(execution: Execution, now: datetime) -> timedelta:
    return now - (execution.end_time or now)


def _size(directory: Path) -> int:
    """Return the bytes that a directory's files take on the disk."""
    return sum(file.lstat().st_blocks * 512 for file in directory.rglob("*")) if directory.is_dir() else 0
