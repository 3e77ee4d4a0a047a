"""The highest fence that a service has seen of each job, so that late calls of a paused driver are refused.

A node service puts `fence_table(metadata)` into its own metadata and its columns into its migrations. Every change
begins with `await fences.check(current_fence())`; `fences.run_retention()` runs in the background.
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
"""How long a fence is kept after it was last seen: by default as long as ended jobs are.

A job that waits longer brings its fence along when it continues. After this time, a process that was frozen for so long
is no longer kept from changing a workspace or an execution that still exists.
"""
_FRESH: Final = timedelta(hours=6)
"""How long a fence is not recorded again: a small part of the time that it is kept."""
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
    """The highest fence of each recent job, in a row of about 60 bytes each."""

    def __init__(self, engine: AsyncEngine, table: Table) -> None:
        self._engine = engine
        self._table = table

    async def check(self, fence: Fence | None) -> None:
        """Record `fence`. None, for an operator's call, always passes. Raises FailedPrecondition (STALE_FENCE).

        One that was recorded a short while ago is only read: a full disk keeps nobody from ending what he began.
        """
        if fence is None or await self._is_fresh(fence):
            return
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        new = insert(self._table).values(job_id=fence.job_id, number=fence.number, seen_time=datetime.now(UTC))
        # One statement, so that of two concurrent fences the lower never wins: no row returns when a higher one exists.
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

    async def _is_fresh(self, fence: Fence) -> bool:
        """True when this is the highest fence of its job, and was seen not long ago."""
        row = select(self._table.c.number, self._table.c.seen_time).where(self._table.c.job_id == fence.job_id)
        async with self._engine.begin() as connection:
            known = (await connection.execute(row)).first()
        if known is None or known.number != fence.number or known.seen_time is None:
            return False
        fresh: bool = datetime.now(UTC) - known.seen_time < _FRESH
        return fresh

    async def run_retention(self) -> None:
        """Remove old fences every hour, until cancelled."""

        async def some() -> bool:
            return await self.forget(datetime.now(UTC) - _KEPT) == _AT_ONCE

        await every_hour("fences", some)

    async def forget(self, before: datetime) -> int:
        """Remove some of the fences that were last seen before `before`; return how many."""
        old = select(self._table.c.job_id).where(self._table.c.seen_time < before).limit(_AT_ONCE)
        async with self._engine.begin() as connection:
            return (await connection.execute(delete(self._table).where(self._table.c.job_id.in_(old)))).rowcount
