"""From one attempt of a job to the next: by its driver, by a cell that takes it over, by a person."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.errors import FailedPrecondition
from services.common.ids import new_id
from services.gateway import requests
from services.gateway.checkpoints.rows import withdraw
from services.gateway.jobs.admission import occupy
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.ending import end_job, end_stages
from services.gateway.jobs.model import JobView
from services.gateway.jobs.notes import end_executions, new_execution
from services.gateway.jobs.rows import job_row, job_view
from services.gateway.jobs.tables import NOW, executions, jobs, now, stages
from services.gateway.requests import Request
from services.gateway.sql import insert_if_absent
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import Output
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState
from services.lifecycle.model.value import dump, load

_SECOND: Final = 1_000_000
_RETRIABLE: Final = (JobState.FAILED, JobState.CANCELLED)


async def give_up(connection: AsyncConnection, job: Row[Any], failure: Failure) -> None:
    """Write down how a job has failed whose attempt is lost, for whoever is to tell its hooks, and to end it.

    The job's row is locked. It is what the driver writes down before it calls error hooks.
    """
    await withdraw(connection, job.job_id)
    of_attempt = (stages.c.job_id == job.job_id, stages.c.attempt == job.attempt)
    number = (await connection.execute(select(func.count()).where(*of_attempt))).scalar_one() + 1
    this = {"job_id": job.job_id, "attempt": job.attempt, "name": "error"}
    begun = {"number": number, "state": StageState.RUNNING, "result": "", "message": "", "start_time": NOW}
    await insert_if_absent(connection, stages, this | begun)
    ended = {"state": StageState.DONE, "result": dump(Outcome(JobState.FAILED, failure)), "message": failure.reason}
    error = update(stages).where(*of_attempt, stages.c.name == "error")
    await connection.execute(error.values(**ended, end_time=NOW))


async def next_attempt(connection: AsyncConnection, job: Row[Any], failure: Failure) -> str:
    """End what has not ended of a job's attempt, and write the execution of the next; return its id.

    The job's row is locked, and for the caller to write.
    """
    execution_id = new_id("exec")
    await withdraw(connection, job.job_id)
    await end_stages(connection, job.job_id)
    await end_executions(connection, job.job_id, ExecutionState.FAILED, failure.reason, failure.message)
    fresh = new_execution(execution_id, job.job_id, job.attempt + 1, Purpose.AGENT)
    await connection.execute(insert(executions).values(fresh))
    return execution_id


async def retry_later(connection: AsyncConnection, cell_id: str, lease: Lease, retry: Retry) -> None:
    """Have the lease's job wait for its next attempt; see Ledger.retry."""
    job = await job_row(connection, lease.job_id, locked=True)
    if job.fence != lease.fence or job.state == JobState.AWAITING_APPROVAL:
        raise LeaseLost
    if job.state != JobState.RUNNING:  # it was done, and the answer was lost
        return
    if job.cancel_requested:
        await end_job(connection, job, Outcome(JobState.CANCELLED))
        return
    execution_id = await next_attempt(connection, job, retry.failure)
    waiting = update(jobs).where(jobs.c.job_id == job.job_id)
    await connection.execute(
        waiting.values(
            state=JobState.PENDING,
            attempt=job.attempt + 1,
            execution_id=execution_id,
            snapshot_id=retry.snapshot_id or job.snapshot_id,
            bound_cell_id=cell_id if retry.snapshot_id else job.bound_cell_id,
            held=False,
            lease_until=0,
            wake_time=now() + round(retry.seconds * _SECOND),
            revision=job.revision + 1,
        )
    )


class Retries:
    """Has jobs that have ended tried again, at somebody's wish."""

    def __init__(self, engine: AsyncEngine, changes: Changes) -> None:
        self._engine = engine
        self._changes = changes

    async def retry(self, job_id: str, *, from_snapshot: bool, request: Request | None) -> JobView:
        """Put a job that FAILED or was CANCELLED into the queue again, with as many attempts as it had at first.

        Raises NotFound, FailedPrecondition (JOB_STATE, NO_SNAPSHOT, WORK_ITEM_BUSY), AlreadyExists (REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            if await requests.claim(connection, request, job_id) is None:
                await _begin_again(connection, job_id, from_snapshot=from_snapshot)
            view = await job_view(connection, job_id)
        self._changes.changed(job_id, work=True)
        return view


async def _begin_again(connection: AsyncConnection, job_id: str, *, from_snapshot: bool) -> None:
    job = await job_row(connection, job_id, locked=True)
    if JobState(job.state) not in _RETRIABLE:
        raise FailedPrecondition(
            "JOB_STATE",
            f"job {job_id!r} is {job.state}: what has failed or was cancelled can be tried again",
            job_id,
            state=job.state,
            allowed_states=_RETRIABLE,
        )
    snapshot_id, cell_id = await _left(connection, job) if from_snapshot else ("", "")
    if job.work_item_id:
        await occupy(connection, job.work_item_id)
    order = load(JobSpec, job.definition)
    since: datetime = (await connection.execute(select(NOW))).scalar_one()
    execution_id = await next_attempt(connection, job, Failure(job.reason, job.message))
    again = update(jobs).where(jobs.c.job_id == job_id)
    await connection.execute(
        again.values(
            state=JobState.PENDING,
            reason="",
            message="",
            cancel_requested=False,
            attempt=job.attempt + 1,
            last_attempt=job.attempt + order.policy.max_attempts,
            execution_id=execution_id,
            snapshot_id=snapshot_id,
            bound_cell_id=cell_id,
            # It stands in the queue as if it came now, with the priority that it has.
            turn=job.turn + microseconds(since) - as_number(jobs.c.create_time),
            wake_time=microseconds(since),
            revision=job.revision + 1,
            end_time=None,
        )
    )


async def _left(connection: AsyncConnection, job: Row[Any]) -> tuple[str, str]:
    """Return the snapshot of what a job's last attempt left, and the cell that has it."""
    last = select(executions.c.output, executions.c.cell_id).where(executions.c.execution_id == job.execution_id)
    row = (await connection.execute(last)).one()
    snapshot_id = load(Output, row.output).snapshot_id
    if not snapshot_id:
        raise FailedPrecondition(
            "NO_SNAPSHOT",
            f"the last attempt of job {job.job_id!r} left nothing that was kept: try it again from its beginning",
            job.job_id,
        )
    return snapshot_id, row.cell_id
