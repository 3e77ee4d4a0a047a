"""Sends changes of jobs between gateways that share a PostgreSQL, so that waiters look at once.

A notification is sent after the change was written, and may be lost: waiters also poll, only more slowly.
"""

import asyncio
import secrets
from contextlib import aclosing
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.pg_notify import MAX_PAYLOAD_BYTES, notifications, notify
from services.common.errors import Unavailable
from services.gateway.ledger.notifier import JobNotifier

_CHANNEL: Final = "boatyard_jobs"
_WORK: Final = "!"
"""Follows the id of a job that a driver may now be able to claim."""
_AT_ONCE: Final = MAX_PAYLOAD_BYTES // 70  # an id is at most 63 characters

log = structlog.get_logger()


class ChangeBroadcast:
    """Sends the changes made by this process to the others, and wakes the waiters of this process for theirs."""

    def __init__(self, engine: AsyncEngine, notifier: JobNotifier) -> None:
        self._engine = engine
        self._notifier = notifier
        self._sender_id = secrets.token_hex(4)  # we hear our own notifications too
        self._unsent: dict[str, bool] = {}
        self._has_unsent = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled; return at once on a database that no other process shares."""
        if self._engine.dialect.name != "postgresql":
            return
        self._notifier.call_on_change(self._add)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            tasks.create_task(self._hear())

    def _add(self, job_id: str, work: bool) -> None:
        self._unsent[job_id] = work or self._unsent.get(job_id, False)
        self._has_unsent.set()

    async def _send(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            while self._unsent:
                batch = [self._unsent.popitem() for _ in range(min(len(self._unsent), _AT_ONCE))]
                words = (job_id + (_WORK if work else "") for job_id, work in batch)
                try:
                    await notify(self._engine, _CHANNEL, " ".join((self._sender_id, *words)))
                except Unavailable:  # the others poll
                    self._unsent.clear()
                except Exception:  # one failed notification must not end the loop
                    log.exception("could not send a change")

    async def _hear(self) -> None:
        async with aclosing(notifications(self._engine, _CHANNEL)) as payloads:
            async for payload in payloads:
                if payload is None:  # the connection was lost, and notifications with it
                    self._notifier.notify_all()
                    continue
                sender, *words = payload.split(" ")
                if sender != self._sender_id:
                    for word in words:
                        self._notifier.notify_local(word.removesuffix(_WORK), work=word.endswith(_WORK))
