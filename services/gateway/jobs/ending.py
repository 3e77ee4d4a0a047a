"""The end of a job, in whichever transaction it comes: by its driver, by a cancel before it began, by lost cells."""

from typing import Any

from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.gateway.catalog.model import WorkItemState
from services.gateway.catalog.store import set_work_item_state
from services.gateway.checkpoints.rows import withdraw
from services.gateway.facts import JobEnded
from services.gateway.jobs.notes import end_executions, text_of
from services.gateway.jobs.tables import NOW, jobs, stages
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import ExecutionState, JobState, StageState

_UNFINISHED = "it was not finished when the attempt ended"


async def end_job(connection: AsyncConnection, job: Row[Any], outcome: Outcome) -> None:
    """End a job whose row is locked: with it its stages and executions, and its hold on a work item."""
    reason = outcome.failure.reason if outcome.failure else ""
    message = outcome.failure.message if outcome.failure else ""
    ended = await connection.execute(
        update(jobs)
        .where(jobs.c.job_id == job.job_id)
        .values(
            state=outcome.state,
            reason=reason,
            message=text_of(message),
            revision=jobs.c.revision + 1,
            held=False,
            end_time=NOW,
        )
        .returning(jobs.c.end_time)
    )
    seconds = (ended.scalar_one() - job.start_time).total_seconds() if job.start_time else None
    publish_on_commit(connection, JobEnded(job.kind, outcome.state, reason, seconds))
    await end_stages(connection, job.job_id)
    await withdraw(connection, job.job_id)
    cancelled = outcome.state is JobState.CANCELLED
    await end_executions(
        connection,
        job.job_id,
        ExecutionState.CANCELLED if cancelled else ExecutionState.FAILED,
        reason,
        message,
    )
    if job.work_item_id:
        succeeded = outcome.state is JobState.SUCCEEDED
        await set_work_item_state(
            connection, job.work_item_id, WorkItemState.REVIEW if succeeded else WorkItemState.TODO
        )


async def end_stages(connection: AsyncConnection, job_id: str) -> None:
    """End what has not ended of a job's stages."""
    running = update(stages).where(stages.c.job_id == job_id, stages.c.state == StageState.RUNNING)
    await connection.execute(running.values(state=StageState.FAILED, message=_UNFINISHED, end_time=NOW))
