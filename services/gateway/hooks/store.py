"""Hooks in SQL. Their number is small: what is removed stays as a row, for the jobs and requests that know its id."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.errors import NotFound
from services.gateway import requests
from services.gateway.catalog.store import PROJECTS
from services.gateway.hooks.model import Hook
from services.gateway.hooks.tables import hooks
from services.gateway.requests import Request
from services.gateway.sql import read_page

_IN_ORDER = (hooks.c.order, as_number(hooks.c.create_time), hooks.c.hook_id)
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


async def hooks_in_force(connection: AsyncConnection, project_id: str) -> Sequence[Hook]:
    """Return what is to be called for a job of a project, in order. Works inside the caller's transaction."""
    return await _read(connection, _IN_FORCE.where(hooks.c.project_id == project_id).order_by(*_IN_ORDER))


async def secret_of(connection: AsyncConnection, hook_id: str) -> str:
    """Return the secret of a webhook, removed or not. Works inside the caller's transaction."""
    return str((await connection.execute(select(hooks.c.secret).where(hooks.c.hook_id == hook_id))).scalar_one())


async def _read(connection: AsyncConnection, statement: Select[Any]) -> list[Hook]:
    return [Hook(**row) for row in (await connection.execute(statement)).mappings()]
