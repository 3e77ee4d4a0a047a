"""Removes jobs that ended long ago, with everything that was recorded of them, a few at a time."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number
from services.common.db.retention import every_hour
from services.gateway.ledger.totals import keep_count
from services.gateway.ledger.usage import keep_labels
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import executions, jobs
from services.gateway.schema.metadata import metadata
from services.lifecycle.model.states import JobState

_FINAL: Final = [state for state in JobState if state.is_final]
_DAY: Final = 86_400_000_000
_AT_ONCE: Final = 100
"""Jobs that one transaction removes: on SQLite everybody else waits for it."""


async def run_retention(engine: AsyncEngine, keep_days: float) -> None:
    """Remove jobs that ended more than `keep_days` ago, every hour, until cancelled; 0 keeps all."""

    async def remove_some() -> bool:
        return await remove_expired(engine, keep_days) > 0

    if keep_days:
        await every_hour("jobs", remove_some)


async def remove_expired(engine: AsyncEngine, keep_days: float, at_once: int = _AT_ONCE) -> int:
    """Remove some of the jobs that ended more than `keep_days` ago, by the database's clock; return how many.

    Jobs that somebody else has locked, to retry them, are skipped.
    """
    over = as_number(jobs.c.end_time) < now() - round(keep_days * _DAY)
    old = select(jobs.c.job_id).where(over, jobs.c.state.in_(_FINAL)).order_by(jobs.c.end_time).limit(at_once)
    async with engine.begin() as connection:
        job_ids = (await connection.execute(old.with_for_update(skip_locked=True))).scalars().all()
        if job_ids:
            await _delete(connection, job_ids)
    return len(job_ids)


async def _delete(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    """Delete jobs, and before them the rows of all tables that belong to them or to their executions."""
    await keep_count(connection, job_ids)
    await keep_labels(connection, job_ids)
    of_jobs = select(executions.c.execution_id).where(executions.c.job_id.in_(job_ids))
    for table in reversed(metadata.sorted_tables):
        if (column := _reference(table, executions)) is not None:
            await connection.execute(delete(table).where(column.in_(of_jobs)))
        elif (column := _reference(table, jobs)) is not None:
            await connection.execute(delete(table).where(column.in_(job_ids)))
    await connection.execute(delete(jobs).where(jobs.c.job_id.in_(job_ids)))


def _reference(table: Table, target: Table) -> ColumnElement[str] | None:
    """Return the column of a table that references a target; None when there is none."""
    return next((key.parent for key in table.foreign_keys if key.column.table is target), None)
