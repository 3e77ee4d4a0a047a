"""Records in SQL: written in batches, read in pages, forgotten in time."""

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
from services.gateway.audit.model import REFUSED, Record, Wanted
from services.gateway.audit.tables import audit_records
from services.gateway.sql import read_page

_KEY = (as_number(audit_records.c.time), audit_records.c.record_id)


class AuditStore:
    """Knows the records."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, records: Sequence[Record]) -> None:
        """Keep some records; those that are there already, of a try whose answer was lost, are left alone."""
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        async with self._engine.begin() as connection:
            await connection.execute(insert(audit_records).on_conflict_do_nothing(), list(map(_row, records)))

    async def page(self, wanted: Wanted, page: Page) -> tuple[list[Record], str]:
        """Return a page of the records that are wanted, the newest first, and the token of the next."""
        statement = select(audit_records).where(*_conditions(wanted))
        async with self._engine.begin() as connection:
            return await read_page(
                connection,
                page.select(statement, _KEY, descending=True),
                page,
                _record,
                lambda record: (microseconds(record.time), record.record_id),
            )


async def forget(connection: AsyncConnection, before: datetime) -> int:
    """Forget the calls that ended before a moment; return how many."""
    return (await connection.execute(delete(audit_records).where(audit_records.c.time < before))).rowcount


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    columns = audit_records.c
    conditions = []
    if wanted.caller:
        conditions.append(columns.caller == wanted.caller)
    if wanted.method:
        conditions.append(columns.method == wanted.method)
    if wanted.resource_id:
        conditions.append(columns.resources.contains(f"/{wanted.resource_id} ", autoescape=True))
    if wanted.only_refused:
        conditions.append(columns.status.in_(REFUSED) | (columns.reason == TOO_MANY_FAILURES))
    if wanted.after is not None:
        conditions.append(columns.time >= wanted.after)
    if wanted.before is not None:
        conditions.append(columns.time < wanted.before)
    return conditions


def _row(record: Record) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return values | {"resources": "".join(f" {resource} " for resource in record.resources)}


def _record(**row: Any) -> Record:  # noqa: ANN401 - the row's values
    return Record(**row | {"resources": tuple(row["resources"].split())})
