"""Whose a job is now: asked by each cell for what it finds on its own machine."""

from collections.abc import Collection

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.jobs.store import LIVE
from services.gateway.jobs.tables import jobs
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.states import JobState
from services.lifecycle.model.value import load
from services.lifecycle.orphans import JobStatus

_CARRIED = tuple(state for state in LIVE if state is not JobState.PENDING)


class JobStandings:
    """Answers for one cell."""

    def __init__(self, engine: AsyncEngine, cell_id: str) -> None:
        self._engine = engine
        self._cell_id = cell_id

    async def of(self, job_ids: Collection[str]) -> dict[str, JobStatus]:
        """Return how this cell stands to jobs; those that are not in this database are left out."""
        if not job_ids:
            return {}
        here = (jobs.c.cell_id == self._cell_id) & jobs.c.state.in_(_CARRIED)
        attempt = case((here, jobs.c.execution_id), else_="").label("attempt")
        wanted = select(jobs.c.job_id, jobs.c.definition, attempt).where(jobs.c.job_id.in_(sorted(job_ids)))
        async with self._engine.begin() as connection:
            rows = (await connection.execute(wanted)).all()
        return {row.job_id: JobStatus(row.attempt, load(JobSpec, row.definition).policy.retention) for row in rows}
