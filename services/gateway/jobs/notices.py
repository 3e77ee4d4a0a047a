"""Changes of jobs, told between gateways that share a PostgreSQL, so that none has to look to find out.

A notice may be lost, and comes after what it is about was written: it only makes somebody look earlier.
"""

import asyncio
import secrets
from contextlib import aclosing
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.pg_notify import MAX_PAYLOAD_BYTES, notifications, notify
from services.common.errors import Unavailable
from services.gateway.jobs.changes import Changes

_CHANNEL: Final = "boatyard_jobs"
_WORK: Final = "!"
_AT_ONCE: Final = MAX_PAYLOAD_BYTES // 70  # an id is at most 63 characters

log = structlog.get_logger()


class Notices:
    """Tells others what has changed here, and those who wait here what has changed elsewhere."""

    def __init__(self, engine: AsyncEngine, changes: Changes) -> None:
        self._engine = engine
        self._changes = changes
        self._ours = secrets.token_hex(4)  # what we say we hear too
        self._unsent: dict[str, bool] = {}
        self._any = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; at once done with where there is nobody else."""
        if self._engine.dialect.name != "postgresql":
            return
        self._changes.call_on_change(self._add)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            tasks.create_task(self._hear())

    def _add(self, job_id: str, work: bool) -> None:
        self._unsent[job_id] = work or self._unsent.get(job_id, False)
        self._any.set()

    async def _send(self) -> None:
        while True:
            await self._any.wait()
            self._any.clear()
            while self._unsent:
                some = [self._unsent.popitem() for _ in range(min(len(self._unsent), _AT_ONCE))]
                words = (job_id + (_WORK if work else "") for job_id, work in some)
                try:
                    await notify(self._engine, _CHANNEL, " ".join((self._ours, *words)))
                except Unavailable:  # others look, now and then
                    self._unsent.clear()
                except Exception:  # the loop outlives whatever one notice met
                    log.exception("could not tell of a change")

    async def _hear(self) -> None:
        async with aclosing(notifications(self._engine, _CHANNEL)) as payloads:
            async for payload in payloads:
                if payload is None:
                    self._changes.missed()
                    continue
                sender, *words = payload.split(" ")
                if sender != self._ours:
                    for word in words:
                        self._changes.heard(word.removesuffix(_WORK), work=word.endswith(_WORK))
