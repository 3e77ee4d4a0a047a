"""The highest fence that a service has seen of each job: what a paused driver does too late is refused.

A node service puts `fence_table(metadata)` into its own metadata and the same two columns into its first migration:

    op.create_table(
        "fences", Column("job_id", String(63), primary_key=True), Column("number", BigInteger, nullable=False)
    )

Whatever changes something begins with `await fences.check(current_fence())`.
"""

from sqlalchemy import BigInteger, Column, MetaData, String, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import FailedPrecondition
from services.common.fence import Fence


def fence_table(metadata: MetaData) -> Table:
    """Add the table to a service's metadata."""
    return Table(
        "fences",
        metadata,
        Column("job_id", String(63), primary_key=True),
        Column("number", BigInteger, nullable=False),
    )


class Fences:
    """Knows the highest number of each job; a row a job, some 50 bytes, is what it costs."""

    def __init__(self, engine: AsyncEngine, table: Table) -> None:
        self._engine = engine
        self._table = table

    async def check(self, fence: Fence | None) -> None:
        """Record `fence`; None, an operator's call, always passes. Raises FailedPrecondition (STALE_FENCE)."""
        if fence is None:
            return
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        new = insert(self._table).values(job_id=fence.job_id, number=fence.number)
        # One statement, so that of two fences at once the lower never wins: no row comes back where a higher one is.
        statement = new.on_conflict_do_update(
            index_elements=[self._table.c.job_id],
            set_={"number": new.excluded.number},
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
