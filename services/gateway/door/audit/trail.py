"""From the calls to the database: records wait in memory for the next batch, so that no call waits for the database."""

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
_LAST_SECONDS = 3.0
_MAX_WAITING = 10_000
_MAX_UNKNOWN_PER_SECOND = 10

log = structlog.get_logger()


class AuditTrail:
    """Takes records, and writes them as long as `run` runs; what then is left, at its end."""

    def __init__(self, store: AuditStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[AuditRecord] = deque()
        self._some = asyncio.Event()
        self._second, self._unknown = 0.0, Counter[str]()
        self._lost = 0

    def note(self, record: AuditRecord) -> None:
        """Take a record. It never waits and never fails: where there is no room for it, it is counted, and logged."""
        if len(self._waiting) >= _MAX_WAITING or self._is_one_too_many(record):
            self._lost += 1
            return
        self._waiting.append(record)
        self._some.set()

    async def run(self) -> None:
        """Write what comes, until cancelled; then write what is left, if the database takes it at once."""
        try:
            while True:
                await self._some.wait()
                await asyncio.sleep(_BATCH_SECONDS)
                if not await self._write():
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            await self._write_the_last()

    def _is_one_too_many(self, record: AuditRecord) -> bool:
        """Whether it is of a flood of calls by nobody: what comes without a token must not fill the disk."""
        if record.caller:
            return False
        now = self._clock()
        if now - self._second >= 1:
            self._second, self._unknown = now, Counter()
        self._unknown[record.reason] += 1  # of each reason some: what was cut off is not to be lost in what came before
        return self._unknown[record.reason] > _MAX_UNKNOWN_PER_SECOND

    async def _write(self) -> bool:
        """Write what waits; say whether the database took it. What it did not take is kept."""
        self._some.clear()
        if self._lost:
            log.error("calls were not recorded: too many at once", calls=self._lost)
            self._lost = 0
        while self._waiting:
            batch = [self._waiting[index] for index in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._store.add(batch)
            except Unavailable as error:
                log.warning("records of calls wait for the database", calls=len(self._waiting), error=str(error))
                self._some.set()
                return False
            except SQLAlchemyError:  # they would be no better the next time, and those behind them would wait for ever
                log.exception("calls were not recorded: the database refuses them", calls=len(batch))
            for _ in batch:
                self._waiting.popleft()
        return True

    async def _write_the_last(self) -> None:
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._write()
        except TimeoutError:
            log.warning("the database is too slow for the last records of calls")
        if self._waiting:
            log.error("calls were not recorded: the database is away at the end", calls=len(self._waiting))
