"""Makes a job for each work item that is moved to in progress."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import FailedPrecondition
from services.gateway.catalog.store import PROJECTS, WORK_ITEMS
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.kinds import WORK_ITEM_KIND
from services.gateway.jobs.submission import JobSubmission
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.jobs import LIVE, jobs

_PROMPT: Final = "Do what this work item asks for."


class WorkItemJobs:
    """Starts the jobs of work items."""

    def __init__(self, engine: AsyncEngine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    async def start(self, work_item_id: str, key: IdempotencyKey | None) -> str:
        """Make a work item's job and return its id; for one that is in progress already, return the id of its job.

        It is for the item's worker or template, else its project's default worker, else the gateway's own agent. Raises
        NotFound, FailedPrecondition (WORK_ITEM_INCOMPLETE, WORK_ITEM_BUSY), AlreadyExists (REQUEST_ID_REUSED), Invalid.
        """
        live = select(jobs.c.job_id).where(jobs.c.work_item_id == work_item_id, jobs.c.state.in_(LIVE))
        async with self._engine.begin() as connection:
            item = await WORK_ITEMS.get(connection, work_item_id)
            project = await PROJECTS.get(connection, item.project_id)
            job_id = (await connection.execute(live)).scalars().first()
        if job_id is not None:
            return str(job_id)
        worker_id = item.worker_id or ("" if item.template_id else project.default_worker_id)
        if not (worker_id or item.template_id or self._admission.has_agent):
            raise FailedPrecondition(
                "WORK_ITEM_INCOMPLETE",
                f"there is nobody to do work item {work_item_id!r}: give it a worker or a template, or its project"
                f" {item.project_id!r} a default worker, or the gateway an AGENT_COMMAND",
                work_item_id,
                metadata={"project_id": item.project_id},
            )
        submission = JobSubmission(
            project_id=item.project_id,
            prompt=_PROMPT,
            kind=WORK_ITEM_KIND,
            worker_id=worker_id,
            template_id=item.template_id,
            work_item_id=work_item_id,
        )
        return (await self._admission.admit(submission, key)).spec.job_id
