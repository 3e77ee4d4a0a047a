"""The history of hook calls in SQL: calls are written together with their job, listed here, and removed in time."""

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
"""The longest time for which calls are kept, as the contract states; a job that is removed takes its calls along."""

_ORDER = (as_number(hook_calls.c.start_time), hook_calls.c.call_id)
_COLUMNS = [hook_calls.c[name] for name in CallView.__dataclass_fields__]


class CallStore:
    """Lists calls and removes expired ones. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, filters: CallFilter, page: Page) -> tuple[list[CallView], str]:
        """Return a page of calls in projects that the caller sees, the newest first, and the next page's token."""
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
        statement = page.select(select(*_COLUMNS).where(*conditions), _ORDER, descending=True)
        async with self._engine.begin() as connection:
            return await read_page(connection, statement, page, CallView, _key)

    async def remove_expired(self, age: timedelta = RETENTION) -> int:
        """Remove the calls that began longer than `age` ago, by the database's clock; return their number."""
        is_expired = as_number(hook_calls.c.start_time) < now() - age // timedelta(microseconds=1)
        async with self._engine.begin() as connection:
            return (await connection.execute(delete(hook_calls).where(is_expired))).rowcount

    async def run_retention(self) -> None:
        """Remove expired calls every hour, until cancelled."""

        async def remove_old_calls() -> bool:
            await self.remove_expired()
            return False

        await every_hour("calls of hooks", remove_old_calls)


def _key(view: CallView) -> tuple[int, str]:
    return (microseconds(view.start_time), view.call_id)
