"""The input of jobs: repository, files, secrets and hooks. Everything here works inside the caller's transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFound
from services.gateway.ledger.budgets.bounds import has_budgets
from services.gateway.ledger.executions import pushed_before
from services.gateway.ledger.hooks import hooks_in_force
from services.gateway.ledger.providers import has_providers
from services.gateway.schema.catalog import repositories
from services.gateway.schema.jobs import job_files, jobs
from services.lifecycle.ledger import Lease
from services.lifecycle.model.job_context import FileContent, JobContext, Remote

RECORDING: Final = "/recording"
"""The name under which the recording that a job replays is stored among its files, none of which can have it."""


async def job_context(connection: AsyncConnection, lease: Lease, *, on_coordinator: bool = False) -> JobContext:
    """Return what the lease's job needs beside its spec, as it is now."""
    spec = lease.spec
    files = await read_files(connection, lease.job_id) if spec.files or spec.replay else ()
    hooks = await hooks_in_force(connection, spec.project_id)
    models = select(
        has_providers(spec, on_coordinator=on_coordinator).label("providers"), has_budgets(spec).label("budgets")
    )
    has = (await connection.execute(models)).one()
    return JobContext(
        remote=await read_remote(connection, spec.repository_id) if spec.repository_id else None,
        hooks=tuple(hook.to_call() for hook in hooks if hook.fits(spec.template_id, spec.kind)),
        files=tuple(file for file in files if file.name != RECORDING),
        recording=next((file.data for file in files if file.name == RECORDING), b""),
        pushed_before=await pushed_before(connection, lease),
        secrets=await read_secrets(connection, lease.job_id) if spec.agent.secrets else {},
        has_providers=has.providers,
        has_budgets=has.budgets,
    )


async def write_files(
    connection: AsyncConnection, job_id: str, files: Iterable[FileContent], recording: bytes = b""
) -> None:
    """Store a new job's files, and the recording that it replays."""
    given = (*files, *([FileContent(RECORDING, recording)] if recording else []))
    rows = [{"job_id": job_id, "name": file.name, "content": file.data} for file in given]
    if rows:
        await connection.execute(insert(job_files), rows)


async def read_files(connection: AsyncConnection, job_id: str) -> tuple[FileContent, ...]:
    """Return a job's files."""
    query = select(job_files.c.name, job_files.c.content).where(job_files.c.job_id == job_id)
    rows = (await connection.execute(query.order_by(job_files.c.name))).all()
    return tuple(FileContent(row.name, row.content) for row in rows)


async def read_secrets(connection: AsyncConnection, job_id: str) -> Mapping[str, str]:
    """Return a job's secrets with their values; none for a job that does not exist."""
    query = select(jobs.c.secrets).where(jobs.c.job_id == job_id)
    return (await connection.execute(query)).scalar_one_or_none() or {}


async def read_remote(connection: AsyncConnection, repository_id: str) -> Remote:
    """Return how a repository is reached, with its token. Raises NotFound, also for one that is deleted."""
    columns = [repositories.c[each.name] for each in fields(Remote)]
    query = select(*columns).where(repositories.c.repository_id == repository_id, repositories.c.delete_time.is_(None))
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise NotFound("repository", repository_id)
    return Remote(**row)
