"""Parks a job that waits for a person: without slot, task or lease, until there is an answer or its time is over."""

from typing import Any

from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import microseconds
from services.gateway.ledger.budgets.reservations import close
from services.gateway.ledger.questions import write_question
from services.gateway.ledger.rows import job_row
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.checkpoint import CheckpointState, Question
from services.lifecycle.model.states import JobState


async def park(connection: AsyncConnection, lease: Lease, question: Question) -> None:
    """Write a question, and release its job until there is an answer; see Ledger.park. Raises LeaseLost."""
    row = await job_row(connection, lease.job_id, locked=True)
    if (row.fence, row.state) == (lease.fence, JobState.AWAITING_APPROVAL):
        return  # the first try was written, and its response was lost
    if (row.fence, row.state) != (lease.fence, JobState.RUNNING):
        raise LeaseLost
    await close(connection, lease.job_id)
    checkpoint = await write_question(connection, lease, question)
    waits = checkpoint.state is CheckpointState.PENDING and not row.cancel_requested
    await connection.execute(
        update(jobs)
        .where(jobs.c.job_id == lease.job_id)
        .values(
            state=JobState.AWAITING_APPROVAL,
            held=False,
            lease_until=0,
            wake_time=microseconds(checkpoint.expire_time) if waits else now(),
            revision=row.revision + 1,
        )
    )


async def wake(connection: AsyncConnection, job: Row[Any]) -> None:
    """Let a job whose row is locked be claimed again, now that its question is answered."""
    values: dict[str, Any] = {"revision": job.revision + 1}
    if job.state == JobState.AWAITING_APPROVAL:
        values["wake_time"] = now()
    await connection.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(values))
