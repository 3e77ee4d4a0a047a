"""Keeps audit records in memory until the next batch is written, so that no call waits for the database."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import Unavailable
from services.gateway.door.audit.model import AuditRecord
from services.gateway.door.audit.store import AuditStore

_BATCH_SECONDS = 0.2
_BATCH = 500
_RETRY_SECONDS = 2.0
_FINAL_WRITE_SECONDS = 3.0
_MAX_WAITING = 10_000
_MAX_ANONYMOUS_PER_SECOND = 10

log = structlog.get_logger()


class AuditTrail:
    """Takes records, and writes them while `run` runs; when it ends, it writes those that still wait."""

    def __init__(self, store: AuditStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[AuditRecord] = deque()
        self._has_records = asyncio.Event()
        self._second, self._anonymous = 0.0, Counter[str]()
        self._lost = 0

    def note(self, record: AuditRecord) -> None:
        """Take a record; never waits and never fails: a record without room is counted, and the number is logged."""
        if len(self._waiting) >= _MAX_WAITING or self._exceeds_rate(record):
            self._lost += 1
            return
        self._waiting.append(record)
        self._has_records.set()

    async def run(self) -> None:
        """Write records as they come, until cancelled; then write the rest, if the database takes it at once."""
        try:
            while True:
                await self._has_records.wait()
                await asyncio.sleep(_BATCH_SECONDS)
                if not await self._write():
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            await self._write_remaining()

    def _exceeds_rate(self, record: AuditRecord) -> bool:
        """True when a record is one of a flood of anonymous calls: calls without a token must not fill the disk."""
        if record.caller:
            return False
        now = self._clock()
        if now - self._second >= 1:
            self._second, self._anonymous = now, Counter()
        self._anonymous[record.reason] += (
            1  # counted by reason, so that a flood with one reason does not crowd out the others
        )
        return self._anonymous[record.reason] > _MAX_ANONYMOUS_PER_SECOND

    async def _write(self) -> bool:
        """Write the records that wait; return True when the database took them. It keeps those not taken."""
        self._has_records.clear()
        if self._lost:
            log.error("calls were not recorded: too many at once", calls=self._lost)
            self._lost = 0
        while self._waiting:
            batch = [self._waiting[index] for index in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._store.add(batch)
            except Unavailable as error:
                log.warning("records of calls wait for the database", calls=len(self._waiting), error=str(error))
                self._has_records.set()
                return False
            except SQLAlchemyError:  # another try would fail too, and keep all later records waiting
                log.exception("calls were not recorded: the database refuses them", calls=len(batch))
            for _ in batch:
                self._waiting.popleft()
        return True

    async def _write_remaining(self) -> None:
        try:
            async with asyncio.timeout(_FINAL_WRITE_SECONDS):
                await self._write()
        except TimeoutError:
            log.warning("the database is too slow for the last records of calls")
        if self._waiting:
            log.error("calls were not recorded: the database is away at the end", calls=len(self._waiting))
