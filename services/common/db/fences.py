"""The highest fence that a service has seen of each job: what a paused driver does too late is refused.

A node service puts `fence_table(metadata)` into its own metadata and its columns into its migrations. Whatever changes
something begins with `await fences.check(current_fence())`; beside all else runs `fences.forget_in_time()`.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import Moment
from services.common.db.retention import every_hour
from services.common.errors import FailedPrecondition
from services.common.fence import Fence

_KEPT: Final = timedelta(days=90)
"""How long a fence is remembered after it was last seen: as long as jobs that have ended are known, by default.

A job that waits longer brings its fence along when it goes on. What is given up is to refuse a process that stood still
for so long, and then does something to a workspace or an execution that is still there.
"""
_AT_ONCE: Final = 1000


def fence_table(metadata: MetaData) -> Table:
    """Add the table to a service's metadata."""
    return Table(
        "fences",
        metadata,
        Column("job_id", String(63), primary_key=True),
        Column("number", BigInteger, nullable=False),
        Column("seen_time", Moment, nullable=True),
    )


class Fences:
    """Knows the highest number of each job that was heard of lately; a row of some 60 bytes is what one costs."""

    def __init__(self, engine: AsyncEngine, table: Table) -> None:
        self._engine = engine
        self._table = table

    async def check(self, fence: Fence | None) -> None:
        """Record `fence`; None, an operator's call, always passes. Raises FailedPrecondition (STALE_FENCE)."""
        if fence is None:
            return
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        new = insert(self._table).values(job_id=fence.job_id, number=fence.number, seen_time=datetime.now(UTC))
        # One statement, so that of two fences at once the lower never wins: no row comes back where a higher one is.
        statement = new.on_conflict_do_update(
            index_elements=[self._table.c.job_id],
            set_={"number": new.excluded.number, "seen_time": new.excluded.seen_time},
            where=self._table.c.number <= new.excluded.number,
        ).returning(self._table.c.number)
        async with self._engine.begin() as connection:
            recorded = (await connection.execute(statement)).first()
        if recorded is None:
            raise FailedPrecondition(
                "STALE_FENCE",
                f"another owner has taken the job {fence.job_id} over since fence {fence.number}",
                fence.job_id,
                metadata={"fence": str(fence.number)},
            )

    async def forget_in_time(self) -> None:
        """Forget old fences every hour, until cancelled."""

        async def some() -> bool:
            return await self.forget(datetime.now(UTC) - _KEPT) == _AT_ONCE

        await every_hour("fences", some)

    async def forget(self, before: datetime) -> int:
        """Forget some of the fences that were last seen before a moment; return how many."""
        old = select(self._table.c.job_id).where(self._table.c.seen_time < before).limit(_AT_ONCE)
        async with self._engine.begin() as connection:
            return (await connection.execute(delete(self._table).where(self._table.c.job_id.in_(old)))).rowcount
