"""Hooks in SQL. Their number is small: what is removed stays as a row, for the jobs and requests that know its id."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Enum,
    ForeignKey,
    Integer,
    Interval,
    Select,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.paging import Page
from services.common.errors import NotFound
from services.gateway import requests
from services.gateway.catalog.store import PROJECTS
from services.gateway.database import metadata
from services.gateway.hooks.model import Hook, HookEvent
from services.gateway.requests import Request
from services.gateway.sql import Moment, microseconds, read_page

hooks = Table(
    "hooks",
    metadata,
    Column("hook_id", String(63), primary_key=True),
    Column("project_id", String(63), ForeignKey("projects.project_id"), nullable=False),
    Column("event", Enum(HookEvent, native_enum=False, length=16), nullable=False),
    Column("command", Text, nullable=False),
    Column("order", Integer, nullable=False),
    Column("timeout", Interval, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("remove_time", Moment, nullable=True),
)

_IN_ORDER = (hooks.c.order, type_coerce(hooks.c.create_time, BigInteger), hooks.c.hook_id)
_IN_FORCE = select(hooks).where(hooks.c.remove_time.is_(None))


class HookStore:
    """Knows the hooks. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def register(self, hook: Hook, request: Request | None = None) -> Hook:
        """Keep a hook and return it; for a request that was made before, return what that one made, removed or not.

        Raises NotFound for its project, AlreadyExists (REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await requests.claim(connection, request, hook.hook_id)
            if earlier is not None:
                (made,) = await _read(connection, select(hooks).where(hooks.c.hook_id == earlier))
                return made
            await PROJECTS.get(connection, hook.project_id)
            values = {field.name: getattr(hook, field.name) for field in fields(hook)}
            await connection.execute(insert(hooks).values(values))
            return hook

    async def page(self, project_id: str, page: Page) -> tuple[list[Hook], str]:
        """Return a page of the hooks in force, of one project or ("") of all, in the order in which they are called."""
        statement = _IN_FORCE.where(hooks.c.project_id == project_id) if project_id else _IN_FORCE
        async with self._engine.begin() as connection:
            return await read_page(
                connection,
                page.select(statement, _IN_ORDER),
                page,
                Hook,
                lambda hook: (hook.order, microseconds(hook.create_time), hook.hook_id),
            )

    async def unregister(self, hook_id: str, now: datetime) -> None:
        """Put a hook out of force; once more does nothing. Raises NotFound when there never was one of this id."""
        statement = update(hooks).where(hooks.c.hook_id == hook_id)
        first = func.coalesce(hooks.c.remove_time, microseconds(now), type_=BigInteger)
        async with self._engine.begin() as connection:
            if (await connection.execute(statement.values(remove_time=first))).rowcount == 0:
                raise NotFound("hook", hook_id)


async def hooks_in_force(connection: AsyncConnection, project_id: str, event: HookEvent) -> Sequence[Hook]:
    """Return what is to be called for a job of a project, in order. Works inside the caller's transaction."""
    statement = _IN_FORCE.where(hooks.c.project_id == project_id, hooks.c.event == event).order_by(*_IN_ORDER)
    return await _read(connection, statement)


async def _read(connection: AsyncConnection, statement: Select[Any]) -> list[Hook]:
    return [Hook(**row) for row in (await connection.execute(statement)).mappings()]
