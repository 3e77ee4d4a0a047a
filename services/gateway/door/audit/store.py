"""Audit records in SQL: written in batches, read in pages, removed when they are old."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.rpc.auth_failures import TOO_MANY_FAILURES
from services.gateway.door.audit.model import REFUSED, AuditFilter, AuditRecord
from services.gateway.schema.audit import audit_records
from services.gateway.schema.sql import read_page

_KEY = (as_number(audit_records.c.time), audit_records.c.record_id)


class AuditStore:
    """Writes and reads the records."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, records: Sequence[AuditRecord]) -> None:
        """Store records; those already there, from a try whose answer was lost, are left alone."""
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        async with self._engine.begin() as connection:
            await connection.execute(insert(audit_records).on_conflict_do_nothing(), list(map(_row, records)))

    async def page(self, audit_filter: AuditFilter, page: Page) -> tuple[list[AuditRecord], str]:
        """Return a page of the records that pass the filter, the newest first, and the token of the next page."""
        statement = select(audit_records).where(*_conditions(audit_filter))
        async with self._engine.begin() as connection:
            return await read_page(
                connection,
                page.select(statement, _KEY, descending=True),
                page,
                _record,
                lambda record: (microseconds(record.time), record.record_id),
            )


async def remove_expired(connection: AsyncConnection, before: datetime) -> int:
    """Remove the records of calls that ended before a moment; return how many."""
    return (await connection.execute(delete(audit_records).where(audit_records.c.time < before))).rowcount


def _conditions(audit_filter: AuditFilter) -> list[ColumnElement[bool]]:
    columns = audit_records.c
    conditions = []
    if audit_filter.caller:
        conditions.append(columns.caller == audit_filter.caller)
    if audit_filter.method:
        conditions.append(columns.method == audit_filter.method)
    if audit_filter.resource_id:
        conditions.append(columns.resources.contains(f"/{audit_filter.resource_id} ", autoescape=True))
    if audit_filter.only_refused:
        conditions.append(columns.status.in_(REFUSED) | (columns.reason == TOO_MANY_FAILURES))
    if audit_filter.after_time is not None:
        conditions.append(columns.time >= audit_filter.after_time)
    if audit_filter.before_time is not None:
        conditions.append(columns.time < audit_filter.before_time)
    return conditions


def _row(record: AuditRecord) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return values | {"resources": "".join(f" {resource} " for resource in record.resources)}


def _record(**row: Any) -> AuditRecord:  # noqa: ANN401 - the row's values
    return AuditRecord(**row | {"resources": tuple(row["resources"].split())})
