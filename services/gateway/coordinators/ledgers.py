"""The ledger that a gateway runs for a coordinator, with its refusals as errors of RPCs."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.outages import outage
from services.gateway.coordinators.model import HeldLease
from services.gateway.coordinators.store import CoordinatorStore, lease_lost
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.sql_ledger import RESERVE_WAIT_SECONDS, SqlLedger
from services.gateway.values.cells import Cell
from services.gateway.values.jobs import JobView
from services.lifecycle.ledger import Lease, LeaseLost, LedgerUnavailable


class CoordinatorLedgers:
    """Gives each coordinator a ledger, as a driver has one. `document` writes a job as hooks get it."""

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
        """Yield a coordinator's ledger; a coordinator that is unknown is recorded.

        Raises FailedPrecondition (NOT_A_COORDINATOR), Unavailable (DATABASE_UNAVAILABLE).
        """
        await self._store.enrol(coordinator)
        with self._outages_reported():
            yield self._ledger(coordinator.cell_id)

    @asynccontextmanager
    async def holding(self, held: HeldLease) -> AsyncIterator[tuple[SqlLedger, Lease]]:
        """Yield a coordinator's ledger, and the lease that the coordinator claims to hold.

        Raises NotFound, PermissionDenied (PROJECT_NOT_ALLOWED), Aborted (LEASE_LOST), Unavailable
        (DATABASE_UNAVAILABLE).
        """
        lease = await self._store.lease(held)
        with self._outages_reported():
            try:
                yield self._ledger(held.coordinator_id), lease
            except LeaseLost as error:
                raise lease_lost(held) from error

    def _ledger(self, coordinator_id: str) -> SqlLedger:
        return SqlLedger(
            self._engine,
            coordinator_id,
            self._notifier,
            self._document,
            lease_seconds=self.lease_seconds,
            is_of_coordinator=True,
            reserve_wait_seconds=RESERVE_WAIT_SECONDS,
        )

    @staticmethod
    @contextmanager
    def _outages_reported() -> Iterator[None]:
        try:
            yield
        except LedgerUnavailable as error:
            raise outage() from error
