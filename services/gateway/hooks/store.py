"""Hooks in SQL. As there are few, a removed hook stays as a row, for the jobs and requests that refer to its id."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import microseconds
from services.common.db.paging import Page
from services.common.errors import NotFound
from services.gateway import scope
from services.gateway.catalog.store import PROJECTS, TEMPLATES
from services.gateway.ledger.hooks import IN_FORCE, IN_ORDER, for_project, read_hooks, shown_key
from services.gateway.schema import idempotency
from services.gateway.schema.hooks import hook_calls, hooks
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.ownership import Ownership, owned
from services.gateway.schema.sql import read_page
from services.gateway.values.hooks import Hook

IMMUTABLE: Final = ("hook_id", "project_id", "event", "stage", "create_time", "remove_time")
"""The fields that an update does not change."""

OWNERS: Final[Mapping[str, Ownership]] = {"hook": owned(hooks), "call": owned(hook_calls)}
"""How to look up which project owns a hook or a call."""


class HookStore:
    """Reads and writes hooks. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, hook: Hook, key: IdempotencyKey | None = None) -> Hook:
        """Store a hook and return it; for a repeated request, return the hook of the first one, removed or not.

        Raises NotFound for a project or template of its scope, AlreadyExists (REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await idempotency.claim(connection, key, hook.project_id, hook.hook_id)
            if earlier is not None:
                (earlier_hook,) = await read_hooks(connection, select(hooks).where(hooks.c.hook_id == earlier))
                return earlier_hook
            if hook.project_id:
                await PROJECTS.get(connection, hook.project_id, hold="share")
            await _check_templates(connection, hook)
            await connection.execute(insert(hooks).values(_row(hook)))
            return hook

    async def get(self, hook_id: str) -> Hook:
        """Return a hook in force. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await _get(connection, IN_FORCE.where(hooks.c.hook_id == hook_id), hook_id)

    async def get_with_key(self, hook_id: str) -> tuple[Hook, bytes]:
        """Return a hook in force, and the key that signs its calls or the token that they show. Raises NotFound."""
        hook = await self.get(hook_id)
        return hook, shown_key(hook.secret, is_callback=hook.is_callback)

    async def update(self, hook_id: str, change: Callable[[Hook], Hook]) -> Hook:
        """Apply `change` to a hook in force and return it; the fields in IMMUTABLE stay as they are.

        Raises NotFound, also for a template that it did not name before, and whatever `change` raises.
        """
        async with self._engine.begin() as connection:
            locked = IN_FORCE.where(hooks.c.hook_id == hook_id).with_for_update()
            before = await _get(connection, locked, hook_id)
            hook = replace(change(before), **{name: getattr(before, name) for name in IMMUTABLE})
            await _check_templates(connection, hook, before)
            await connection.execute(update(hooks).where(hooks.c.hook_id == hook_id).values(_row(hook)))
            return hook

    async def page(self, project_id: str, page: Page) -> tuple[list[Hook], str]:
        """Return a page of the hooks in force, in calling order, and the next page's token.

        They are the hooks for `project_id`, or all of them when it is empty.
        """
        conditions = [for_project(project_id)] if project_id else []
        statement = IN_FORCE.where(*conditions, *scope.within(hooks.c.project_id))
        async with self._engine.begin() as connection:
            return await read_page(
                connection,
                page.select(statement, IN_ORDER),
                page,
                Hook,
                lambda hook: (hook.order, microseconds(hook.create_time), hook.hook_id),
            )

    async def delete(self, hook_id: str, now: datetime) -> None:
        """Put a hook out of force; doing it again does nothing. Raises NotFound when no hook ever had this id."""
        statement = update(hooks).where(hooks.c.hook_id == hook_id)
        remove_time = func.coalesce(hooks.c.remove_time, microseconds(now), type_=BigInteger)
        async with self._engine.begin() as connection:
            if (await connection.execute(statement.values(remove_time=remove_time))).rowcount == 0:
                raise NotFound("hook", hook_id)


async def _check_templates(connection: AsyncConnection, hook: Hook, before: Hook | None = None) -> None:
    """Raise NotFound for a missing template, unless the hook named it before: it may have been deleted since."""
    for template_id in hook.template_ids:
        if before is None or template_id not in before.template_ids:
            await TEMPLATES.get(connection, template_id, hook.project_id or None, hold="share")


def _row(hook: Hook) -> dict[str, Any]:
    return {field.name: getattr(hook, field.name) for field in fields(hook)}


async def _get(connection: AsyncConnection, statement: Select[Any], hook_id: str) -> Hook:
    for hook in await read_hooks(connection, statement):
        return hook
    raise NotFound("hook", hook_id)
