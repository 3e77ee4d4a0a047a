"""The files that jobs work on: kept apart from the jobs themselves, which are read far more often."""

from collections.abc import Iterable

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.jobs import job_files
from services.lifecycle.model.surroundings import Content


async def write_files(connection: AsyncConnection, job_id: str, files: Iterable[Content]) -> None:
    """Keep a new job's files."""
    rows = [{"job_id": job_id, "name": file.name, "content": file.data} for file in files]
    if rows:
        await connection.execute(insert(job_files), rows)


async def read_files(connection: AsyncConnection, job_id: str) -> tuple[Content, ...]:
    """Return a job's files."""
    query = select(job_files.c.name, job_files.c.content).where(job_files.c.job_id == job_id)
    rows = (await connection.execute(query.order_by(job_files.c.name))).all()
    return tuple(Content(row.name, row.content) for row in rows)
