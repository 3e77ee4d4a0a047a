"""Ends a job or its attempt, in whichever transaction that happens: its driver's, a cancellation's, or a claim's."""

from typing import Any, Final

from sqlalchemy import Row, String, and_, bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.gateway.ledger.budgets.reservations import HAS_RESERVATIONS, forget
from services.gateway.ledger.hook_calls import RUNNING_CALLS, interrupt_calls
from services.gateway.ledger.questions import OPEN_QUESTIONS, withdraw
from services.gateway.ledger.totals import count_no_more
from services.gateway.ledger.work_items import set_work_item_state
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import executions, jobs, stages
from services.gateway.schema.sql import storable_text
from services.gateway.values.catalog import WorkItemState
from services.gateway.values.facts import JobEnded
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import ExecutionState, JobState, StageState
from services.lifecycle.model.value import load

_KEPT: Final = '"kept":{'
_UNFINISHED: Final = "not finished when the attempt ended"


_THIS: Final = bindparam("this_job", type_=String(63))
_END: Final = update(jobs).where(jobs.c.job_id == _THIS).values(revision=jobs.c.revision + 1, held=False, end_time=NOW)
_RUNNING_STAGES: Final = and_(stages.c.job_id == _THIS, stages.c.state == StageState.RUNNING)
_LIVE_EXECUTIONS: Final = and_(
    executions.c.job_id == _THIS, executions.c.state.in_((ExecutionState.PENDING, ExecutionState.RUNNING))
)
_IS_OPEN: Final = select(
    exists().where(_RUNNING_STAGES).label("stages"),
    exists().where(_LIVE_EXECUTIONS).label("executions"),
    exists().where(OPEN_QUESTIONS).label("questions"),
    exists().where(RUNNING_CALLS).label("calls"),
    HAS_RESERVATIONS,
)
"""One query, as usually nothing is open any more."""
_END_STAGES: Final = (
    update(stages).where(_RUNNING_STAGES).values(state=StageState.FAILED, message=_UNFINISHED, end_time=NOW)
)
_END_EXECUTIONS: Final = update(executions).where(_LIVE_EXECUTIONS).values(end_time=NOW)


async def end_job(connection: AsyncConnection, job: Row[Any], outcome: Outcome) -> None:
    """End a job whose row is locked, with what is still open of it, and release its work item."""
    reason = outcome.failure.reason if outcome.failure else ""
    message = outcome.failure.message if outcome.failure else ""
    told = {"state": outcome.state, "reason": reason, "message": storable_text(message)}
    await connection.execute(_END, told | {"this_job": job.job_id})
    if _publishes(job, outcome.state):
        await count_no_more(connection, job.job_id)
    publish_on_commit(connection, JobEnded(job.kind, outcome.state, reason))
    cancelled = outcome.state is JobState.CANCELLED
    state = ExecutionState.CANCELLED if cancelled else ExecutionState.FAILED
    await end_what_is_open(connection, job.job_id, state, reason, message)
    if job.work_item_id:
        succeeded = outcome.state is JobState.SUCCEEDED
        await set_work_item_state(
            connection, job.work_item_id, WorkItemState.REVIEW if succeeded else WorkItemState.TODO
        )


def _publishes(job: Row[Any], state: JobState) -> bool:
    """True when the job has only published what it had done before, and ends as it had ended then."""
    if _KEPT not in job.definition:  # nearly always, and it is read faster than parsed
        return False
    kept = load(JobSpec, job.definition).kept
    return kept is not None and kept.ended_as == state


async def end_what_is_open(
    connection: AsyncConnection, job_id: str, state: ExecutionState, reason: str, message: str
) -> None:
    """End a job's stages, questions, executions and calls of hooks that have not ended, and settle its reservations.

    The job's row is locked.
    """
    this = {"this_job": job_id}
    still_open = (await connection.execute(_IS_OPEN, this)).one()
    if still_open.stages:
        await connection.execute(_END_STAGES, this)
    if still_open.questions:
        await withdraw(connection, job_id)
    if still_open.calls:
        await interrupt_calls(connection, job_id)
    if still_open.reservations:
        await forget(connection, job_id)
    if still_open.executions:
        told = {"state": state, "reason": reason, "message": storable_text(message)}
        await connection.execute(_END_EXECUTIONS, this | told)
