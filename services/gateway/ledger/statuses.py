"""The status of jobs on a cell, which looks for orphans on its machine."""

from collections.abc import Collection

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.schema.jobs import LIVE, jobs
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.states import JobState
from services.lifecycle.model.value import load
from services.lifecycle.orphans import JobStatus

_CLAIMED = tuple(state for state in LIVE if state is not JobState.PENDING)


class JobStatuses:
    """Knows the status of jobs on one cell."""

    def __init__(self, engine: AsyncEngine, cell_id: str) -> None:
        self._engine = engine
        self._cell_id = cell_id

    async def of(self, job_ids: Collection[str]) -> dict[str, JobStatus]:
        """Return the status of jobs on this cell; those that are not in this database are left out."""
        if not job_ids:
            return {}
        is_on_cell = (jobs.c.cell_id == self._cell_id) & jobs.c.state.in_(_CLAIMED)
        execution_id = case((is_on_cell, jobs.c.execution_id), else_="").label("execution_id")
        query = select(jobs.c.job_id, jobs.c.definition, execution_id).where(jobs.c.job_id.in_(sorted(job_ids)))
        async with self._engine.begin() as connection:
            rows = (await connection.execute(query)).all()
        return {row.job_id: JobStatus(row.execution_id, load(JobSpec, row.definition).policy.retention) for row in rows}
