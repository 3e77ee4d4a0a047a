"""Ends a job, in whichever transaction that happens: its driver's, a cancellation's, or a claim's after lost cells."""

from typing import Any

from sqlalchemy import Row, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.gateway.ledger.executions import end_executions
from services.gateway.ledger.questions import withdraw
from services.gateway.ledger.work_items import set_work_item_state
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import jobs, stages
from services.gateway.schema.sql import storable_text
from services.gateway.values.catalog import WorkItemState
from services.gateway.values.facts import JobEnded
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import ExecutionState, JobState, StageState

_UNFINISHED = "not finished when the attempt ended"


async def end_job(connection: AsyncConnection, job: Row[Any], outcome: Outcome) -> None:
    """End a job whose row is locked, with its stages and executions, and release its work item."""
    reason = outcome.failure.reason if outcome.failure else ""
    message = outcome.failure.message if outcome.failure else ""
    ended = await connection.execute(
        update(jobs)
        .where(jobs.c.job_id == job.job_id)
        .values(
            state=outcome.state,
            reason=reason,
            message=storable_text(message),
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
    """End those of a job's stages that are still running."""
    running = update(stages).where(stages.c.job_id == job_id, stages.c.state == StageState.RUNNING)
    await connection.execute(running.values(state=StageState.FAILED, message=_UNFINISHED, end_time=NOW))
