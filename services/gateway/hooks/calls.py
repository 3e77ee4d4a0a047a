"""The history of calls in SQL: written with the job that they are of, read by whoever asks, and gone in time."""

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.db.retention import every_hour
from services.gateway import scope
from services.gateway.schema.clock import now
from services.gateway.schema.hooks import hook_calls
from services.gateway.schema.sql import read_page
from services.gateway.values.hooks import CallFilter, CallView

RETENTION = timedelta(days=30)
"""How long calls are remembered, at most; the contract says so too. They go with their job before."""

_NEWEST = (as_number(hook_calls.c.start_time), hook_calls.c.call_id)
_SHOWN = [hook_calls.c[name] for name in CallView.__dataclass_fields__]


class CallStore:
    """Knows the calls. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, filters: CallFilter, page: Page) -> tuple[list[CallView], str]:
        """Return a page of calls, the newest first, of projects that the caller sees; and the next page's token."""
        conditions: list[ColumnElement[bool]] = scope.within(hook_calls.c.project_id)
        for value, column in (
            (filters.project_id, hook_calls.c.project_id),
            (filters.hook_id, hook_calls.c.hook_id),
            (filters.job_id, hook_calls.c.job_id),
        ):
            if value:
                conditions.append(column == value)
        if filters.states:
            conditions.append(hook_calls.c.state.in_(sorted(filters.states)))
        statement = page.select(select(*_SHOWN).where(*conditions), _NEWEST, descending=True)
        async with self._engine.begin() as connection:
            return await read_page(connection, statement, page, CallView, _key)

    async def remove_expired(self, age: timedelta = RETENTION) -> int:
        """Forget the calls that began longer ago than that, by the database's clock; return how many."""
        too_old = as_number(hook_calls.c.start_time) < now() - age // timedelta(microseconds=1)
        async with self._engine.begin() as connection:
            return (await connection.execute(delete(hook_calls).where(too_old))).rowcount

    async def run_retention(self) -> None:
        """Forget old calls every hour, until cancelled."""

        async def old() -> bool:
            await self.remove_expired()
            return False

        await every_hour("calls of hooks", old)


def _key(view: CallView) -> tuple[int, str]:
    return (microseconds(view.start_time), view.call_id)
