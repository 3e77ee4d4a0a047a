"""Ledgers of several cells on one database, and jobs in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.drafts import Draft
from services.gateway.jobs.ledger import SqlLedger
from services.gateway.jobs.model import JobView
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.wire import document
from services.lifecycle.ledger import Lease


@dataclass
class Books:
    """One database, as its users have it."""

    engine: AsyncEngine
    changes: Changes = field(default_factory=Changes)

    @property
    def store(self) -> JobStore:
        return JobStore(self.engine, self.changes)

    async def cell(self, name: str, lease_seconds: float = 60.0) -> SqlLedger:
        """Return the ledger of a cell that has just been started."""
        ledger = SqlLedger(self.engine, name, self.changes, document, lease_seconds=lease_seconds)
        await ledger.take_over_own("host")
        return ledger

    async def admit(self, prompt: str = "Do it.", **fields: object) -> JobView:
        draft = Draft(**{"project_id": "default", "prompt": prompt, **fields})  # type: ignore[arg-type]
        return await Admission(self.engine, self.changes, "true").admit(draft, None)


@asynccontextmanager
async def books(url: str) -> AsyncIterator[Books]:
    """Make the tables and open the ledger's database."""
    engine = open_database(url)
    try:
        await migrate(engine, "services.gateway.migrations")
        yield Books(engine)
    finally:
        await engine.dispose()


async def claimed(ledger: SqlLedger) -> Lease:
    """Claim a job that must be there."""
    lease = await ledger.claim()
    assert lease is not None
    return lease
