"""The history of calls in SQL: written with the job that they are of, read by whoever asks, and gone in time."""

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.commit_events import publish_on_commit
from services.common.db.paging import Page
from services.common.db.retention import every_hour
from services.gateway.auth import scope
from services.gateway.facts import HookCalled
from services.gateway.hooks.model import CallFilter, CallView
from services.gateway.hooks.tables import hook_calls
from services.gateway.jobs.tables import NOW, now
from services.gateway.sql import insert_if_absent, read_page
from services.lifecycle.ledger import Lease
from services.lifecycle.model.hook_calls import CallState, HookCall

RETENTION = timedelta(days=30)
"""How long calls are remembered, at most; the contract says so too. They go with their job before."""

_NEWEST = (as_number(hook_calls.c.start_time), hook_calls.c.call_id)
_SHOWN = [hook_calls.c[name] for name in CallView.__dataclass_fields__]


async def write_call(connection: AsyncConnection, lease: Lease, call: HookCall) -> None:
    """Record a call as it now goes. Works inside the caller's transaction, under the job's lease."""
    this = update(hook_calls).where(hook_calls.c.call_id == call.call_id)
    if call.state is not CallState.RUNNING:
        known = {"state": call.state, "tries": call.tries, "status": _text(call.status), "answer": _text(call.answer)}
        ended = this.where(hook_calls.c.state == CallState.RUNNING).values(**known, end_time=NOW)
        if (await connection.execute(ended)).rowcount:
            publish_on_commit(connection, HookCalled(call.event, call.state))
        return
    row = {
        "call_id": call.call_id,
        "hook_id": call.hook_id,
        "job_id": lease.job_id,
        "project_id": lease.order.project_id,
        "attempt": lease.attempt,
        "event": call.event,
        "stage": call.stage,
        "begun": 1,
        "start_time": NOW,
    }
    fresh = {"state": CallState.RUNNING, "fence": lease.fence, "tries": 0, "status": "", "answer": ""}
    if not await insert_if_absent(connection, hook_calls, row | fresh):
        again = this.where(hook_calls.c.fence < lease.fence)
        await connection.execute(again.values(**fresh, begun=hook_calls.c.begun + 1, end_time=None))


async def interrupt_calls(connection: AsyncConnection, job_id: str) -> None:
    """Say of a job's calls that have not ended that nobody will know what they came to."""
    open_ones = update(hook_calls).where(hook_calls.c.job_id == job_id, hook_calls.c.state == CallState.RUNNING)
    await connection.execute(open_ones.values(state=CallState.INTERRUPTED, end_time=NOW))


class CallStore:
    """Knows the calls. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, wanted: CallFilter, page: Page) -> tuple[list[CallView], str]:
        """Return a page of calls, the newest first, of projects that the caller sees; and the next page's token."""
        conditions: list[ColumnElement[bool]] = scope.within(hook_calls.c.project_id)
        for value, column in (
            (wanted.project_id, hook_calls.c.project_id),
            (wanted.hook_id, hook_calls.c.hook_id),
            (wanted.job_id, hook_calls.c.job_id),
        ):
            if value:
                conditions.append(column == value)
        if wanted.states:
            conditions.append(hook_calls.c.state.in_(sorted(wanted.states)))
        statement = page.select(select(*_SHOWN).where(*conditions), _NEWEST, descending=True)
        async with self._engine.begin() as connection:
            return await read_page(connection, statement, page, CallView, _key)

    async def forget(self, age: timedelta = RETENTION) -> int:
        """Forget the calls that began longer ago than that, by the database's clock; return how many."""
        too_old = as_number(hook_calls.c.start_time) < now() - age // timedelta(microseconds=1)
        async with self._engine.begin() as connection:
            return (await connection.execute(delete(hook_calls).where(too_old))).rowcount

    async def forget_in_time(self) -> None:
        """Forget old calls every hour, until cancelled."""

        async def old() -> bool:
            await self.forget()
            return False

        await every_hour("calls of hooks", old)


def _key(view: CallView) -> tuple[int, str]:
    return (microseconds(view.start_time), view.call_id)


def _text(text: str) -> str:
    """Return a text as a database takes it: PostgreSQL keeps no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
