"""Hooks as they are read for a job that runs. Everything here works inside the caller's transaction."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import as_number
from services.common.errors import NotFound
from services.gateway.schema.hooks import hooks
from services.gateway.schema.jobs import jobs
from services.gateway.values.hooks import Hook
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.webhooks import signing_key

IN_ORDER = (hooks.c.order, as_number(hooks.c.create_time), hooks.c.hook_id)
IN_FORCE = select(hooks).where(hooks.c.remove_time.is_(None))

_OF_PROJECT: Final = IN_FORCE.where(
    or_(hooks.c.project_id == bindparam("of_project"), hooks.c.project_id.is_(None)), hooks.c.disabled.is_(False)
).order_by(*IN_ORDER)


async def hooks_in_force(connection: AsyncConnection, project_id: str) -> Sequence[Hook]:
    """Return a project's hooks, in the order of their calls. Those of a job must also fit it: see `Hook.fits`."""
    rows = (await connection.execute(_OF_PROJECT, {"of_project": project_id})).mappings()
    return [Hook(**row) for row in rows]


async def calls_hooks_on_cancel(connection: AsyncConnection, spec: JobSpec) -> bool:
    """True when a hook in force is called for this job when it is cancelled."""
    hooks = await hooks_in_force(connection, spec.project_id)
    return any(hook.on_cancel and hook.fits(spec.template_id, spec.kind) for hook in hooks)


async def key_of(connection: AsyncConnection, hook_id: str, job_id: str) -> bytes:
    """Return the key that signs a webhook's calls, or a callback's token; also of a hook that has been removed.

    Raises NotFound also for a hook of another project than the job's: whoever runs a job, on a machine of its own, may
    have the keys of that job's hooks only.
    """
    project_id = select(jobs.c.project_id).where(jobs.c.job_id == job_id).scalar_subquery()
    of_the_job = or_(hooks.c.project_id == project_id, hooks.c.project_id.is_(None))
    query = select(hooks.c.secret, hooks.c.is_callback).where(hooks.c.hook_id == hook_id, of_the_job)
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound("hook", hook_id)
    return shown_key(row.secret, is_callback=row.is_callback)


async def read_hooks(connection: AsyncConnection, statement: Select[Any]) -> list[Hook]:
    """Return the hooks that a statement selects."""
    return [Hook(**row) for row in (await connection.execute(statement)).mappings()]


def for_project(project_id: str) -> ColumnElement[bool]:
    """Return the condition that a hook is a project's: its own, or one for all projects."""
    return or_(hooks.c.project_id == project_id, hooks.c.project_id.is_(None))


def shown_key(secret: str, *, is_callback: bool) -> bytes:
    """Return the key that signs a webhook's calls, or the token that a callback shows."""
    return secret.encode() if is_callback else signing_key(secret)
