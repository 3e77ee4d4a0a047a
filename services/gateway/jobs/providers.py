"""Whether a job's agent has whom it asks of a model."""

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFound
from services.gateway.schema.catalog import providers
from services.lifecycle.model.job_spec import JobSpec


async def check_providers(connection: AsyncConnection, spec: JobSpec) -> None:
    """Raise NotFound (PROVIDER_NOT_FOUND) for a provider that a job names and its project does not have."""
    named = spec.agent.providers
    if not named:
        return
    columns = providers.c
    query = select(columns.provider_id).where(
        columns.provider_id.in_(named),
        columns.delete_time.is_(None),
        or_(columns.project_id == spec.project_id, columns.project_id.is_(None)),
    )
    known = set((await connection.execute(query)).scalars())
    for name in named:
        if name not in known:
            raise NotFound("provider", name, because="the project has none of that name")
