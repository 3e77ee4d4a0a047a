"""Hooks in SQL. Their number is small: what is removed stays as a row, for the jobs and requests that know its id."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.errors import NotFound
from services.gateway import requests
from services.gateway.auth import scope
from services.gateway.catalog.store import PROJECTS, TEMPLATES
from services.gateway.hooks.model import Hook
from services.gateway.hooks.tables import hooks
from services.gateway.jobs.tables import jobs
from services.gateway.requests import Request
from services.gateway.sql import read_page
from services.lifecycle.webhooks import signing_key

FIXED: Final = ("hook_id", "project_id", "event", "stage", "create_time", "remove_time")
"""What an update leaves as it is."""

_IN_ORDER = (hooks.c.order, as_number(hooks.c.create_time), hooks.c.hook_id)
_IN_FORCE = select(hooks).where(hooks.c.remove_time.is_(None))


class HookStore:
    """Knows the hooks. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def register(self, hook: Hook, request: Request | None = None) -> Hook:
        """Keep a hook and return it; for a request that was made before, return what that one made, removed or not.

        Raises NotFound for what its scope names, AlreadyExists (REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await requests.claim(connection, request, hook.hook_id)
            if earlier is not None:
                (made,) = await _read(connection, select(hooks).where(hooks.c.hook_id == earlier))
                return made
            if hook.project_id:
                await PROJECTS.get(connection, hook.project_id, hold="share")
            await _check_templates(connection, hook)
            await connection.execute(insert(hooks).values(_values(hook)))
            return hook

    async def get(self, hook_id: str) -> Hook:
        """Return a hook in force. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await _get(connection, _IN_FORCE.where(hooks.c.hook_id == hook_id), hook_id)

    async def get_with_key(self, hook_id: str) -> tuple[Hook, bytes]:
        """Return a hook in force, and what its calls are signed with, or show. Raises NotFound."""
        hook = await self.get(hook_id)
        return hook, _key(hook.secret, is_callback=hook.is_callback)

    async def update(self, hook_id: str, change: Callable[[Hook], Hook]) -> Hook:
        """Change a hook in force by `change`, and return it; what FIXED names stays as it is.

        Raises NotFound, also for a template that it newly names, and whatever `change` raises.
        """
        async with self._engine.begin() as connection:
            held = _IN_FORCE.where(hooks.c.hook_id == hook_id).with_for_update()
            before = await _get(connection, held, hook_id)
            hook = replace(change(before), **{name: getattr(before, name) for name in FIXED})
            await _check_templates(connection, hook, before)
            await connection.execute(update(hooks).where(hooks.c.hook_id == hook_id).values(_values(hook)))
            return hook

    async def page(self, project_id: str, page: Page) -> tuple[list[Hook], str]:
        """Return a page of the hooks in force, in the order of their calls: those for a project, or ("") all."""
        wanted = [_for_project(project_id)] if project_id else []
        statement = _IN_FORCE.where(*wanted, *scope.within(hooks.c.project_id))
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
    """Return what is to be called for jobs of a project, in order, as far as it fits them: see `Hook.fits`.

    Works inside the caller's transaction.
    """
    wanted = _IN_FORCE.where(_for_project(project_id), hooks.c.disabled.is_(False))
    return await _read(connection, wanted.order_by(*_IN_ORDER))


async def key_of(connection: AsyncConnection, hook_id: str, job_id: str) -> bytes:
    """Return what a webhook's calls are signed with, or the token that a callback shows, of one that is removed too.

    Works inside the caller's transaction. Raises NotFound also for a hook of another project than the job's: whoever
    carries a job, on a machine of its own, has a right to the keys of that job's hooks alone.
    """
    project_id = select(jobs.c.project_id).where(jobs.c.job_id == job_id).scalar_subquery()
    of_the_job = or_(hooks.c.project_id == project_id, hooks.c.project_id.is_(None))
    kept = select(hooks.c.secret, hooks.c.is_callback).where(hooks.c.hook_id == hook_id, of_the_job)
    row = (await connection.execute(kept)).first()
    if row is None:
        raise NotFound("hook", hook_id)
    return _key(row.secret, is_callback=row.is_callback)


def _key(secret: str, *, is_callback: bool) -> bytes:
    return secret.encode() if is_callback else signing_key(secret)


def _for_project(project_id: str) -> ColumnElement[bool]:
    return or_(hooks.c.project_id == project_id, hooks.c.project_id.is_(None))


async def _check_templates(connection: AsyncConnection, hook: Hook, before: Hook | None = None) -> None:
    """Look up the templates that a hook names, but for those that it named before: they may have gone."""
    for template_id in hook.template_ids:
        if before is None or template_id not in before.template_ids:
            await TEMPLATES.get(connection, template_id, hook.project_id or None, hold="share")


def _values(hook: Hook) -> dict[str, Any]:
    return {field.name: getattr(hook, field.name) for field in fields(hook)}


async def _get(connection: AsyncConnection, statement: Select[Any], hook_id: str) -> Hook:
    for hook in await _read(connection, statement):
        return hook
    raise NotFound("hook", hook_id)


async def _read(connection: AsyncConnection, statement: Select[Any]) -> list[Hook]:
    return [Hook(**row) for row in (await connection.execute(statement)).mappings()]
