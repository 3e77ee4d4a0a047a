"""Whose lease is whose: the ledger that a gateway keeps for a coordinator, and what its refusals mean to one."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.outages import outage
from services.gateway.coordinators.model import HeldLease
from services.gateway.coordinators.store import CoordinatorStore, lost
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.values.cells import Cell
from services.gateway.values.jobs import JobView
from services.lifecycle.ledger import Lease, LeaseLost, LedgerUnavailable


class CoordinatorLedgers:
    """Where coordinators' calls become those of a driver. `document` writes a job for hooks."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: CoordinatorStore,
        notifier: JobNotifier,
        document: Callable[[JobView], bytes],
        lease_seconds: float,
    ) -> None:
        self._engine = engine
        self._store = store
        self._notifier = notifier
        self._document = document
        self.lease_seconds = lease_seconds

    @asynccontextmanager
    async def ledger(self, coordinator: Cell) -> AsyncIterator[SqlLedger]:
        """Give a coordinator's ledger; one that nobody knows yet is written down.

        Raises FailedPrecondition (NOT_A_COORDINATOR), Unavailable (DATABASE_UNAVAILABLE).
        """
        await self._store.enrol(coordinator)
        with self._outages_told():
            yield self._ledger(coordinator.cell_id)

    @asynccontextmanager
    async def holding(self, held: HeldLease) -> AsyncIterator[tuple[SqlLedger, Lease]]:
        """Give a coordinator's ledger, and the lease that it says it has.

        Raises NotFound, PermissionDenied (PROJECT_NOT_ALLOWED), Aborted (LEASE_LOST), Unavailable
        (DATABASE_UNAVAILABLE).
        """
        lease = await self._store.lease(held)
        with self._outages_told():
            try:
                yield self._ledger(held.coordinator_id), lease
            except LeaseLost as error:
                raise lost(held) from error

    def _ledger(self, coordinator_id: str) -> SqlLedger:
        seconds = self.lease_seconds
        return SqlLedger(self._engine, coordinator_id, self._notifier, self._document, lease_seconds=seconds)

    @staticmethod
    @contextmanager
    def _outages_told() -> Iterator[None]:
        try:
            yield
        except LedgerUnavailable as error:
            raise outage() from error
