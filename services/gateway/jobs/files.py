"""The files that jobs work on: kept apart from the jobs themselves, which are read far more often."""

from collections.abc import Iterable

from sqlalchemy import Column, ForeignKey, LargeBinary, String, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.database import metadata
from services.lifecycle.model.job_context import FileContent

MAX_NAME_BYTES = 255

job_files = Table(
    "job_files",
    metadata,
    Column("job_id", String(63), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(MAX_NAME_BYTES), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)


async def write_files(connection: AsyncConnection, job_id: str, files: Iterable[FileContent]) -> None:
    """Keep a new job's files."""
    rows = [{"job_id": job_id, "name": file.name, "content": file.data} for file in files]
    if rows:
        await connection.execute(insert(job_files), rows)


async def read_files(connection: AsyncConnection, job_id: str) -> tuple[FileContent, ...]:
    """Return a job's files."""
    found = select(job_files.c.name, job_files.c.content).where(job_files.c.job_id == job_id)
    rows = (await connection.execute(found.order_by(job_files.c.name))).all()
    return tuple(FileContent(row.name, row.content) for row in rows)
