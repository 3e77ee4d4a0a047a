"""Ends one attempt of a job and begins the next: for its driver, or for a cell that takes the job over."""

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.ids import new_id
from services.gateway.ledger.budgets.uses import carry_over
from services.gateway.ledger.ending import end_job, end_what_is_open
from services.gateway.ledger.executions import new_execution
from services.gateway.ledger.hooks import calls_hooks_on_cancel
from services.gateway.ledger.outages import place_after
from services.gateway.ledger.questions import withdraw
from services.gateway.schema.clock import NOW, now
from services.gateway.schema.jobs import executions, jobs, stages
from services.gateway.schema.sql import insert_if_absent
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState
from services.lifecycle.model.value import dump, load

_SECOND: Final = 1_000_000


async def give_up(connection: AsyncConnection, job: Row[Any], outcome: Outcome) -> None:
    """Record the end of a job whose attempt is lost, for the claimer that calls its error hooks and ends it.

    The job's row is locked. The record is the same that a driver writes before it calls error hooks.
    """
    await withdraw(connection, job.job_id)
    of_attempt = (stages.c.job_id == job.job_id, stages.c.attempt == job.attempt)
    number = (await connection.execute(select(func.count()).where(*of_attempt))).scalar_one() + 1
    key = {"job_id": job.job_id, "attempt": job.attempt, "name": "error"}
    running = {"number": number, "state": StageState.RUNNING, "result": "", "message": "", "start_time": NOW}
    await insert_if_absent(connection, stages, key | running)
    message = outcome.failure.reason if outcome.failure else outcome.state
    done = {"state": StageState.DONE, "result": dump(outcome), "message": message}
    error = update(stages).where(*of_attempt, stages.c.name == "error")
    await connection.execute(error.values(**done, end_time=NOW))


async def failure_of_agent(connection: AsyncConnection, job: Row[Any]) -> Failure | None:
    """Return how the agent of a job's attempt has failed, as its driver recorded it; None when it has not.

    Then the job fails with this, although the machine was lost before that was recorded too: to do it all again would
    end the same way.
    """
    agent = await _newest_agent(connection, job)
    if agent is None or agent.state != ExecutionState.FAILED:
        return None
    return Failure(agent.reason, agent.message)


async def _newest_agent(connection: AsyncConnection, job: Row[Any]) -> Row[str, str, str, str] | None:
    """Return the execution of the agent in the last round of a job's attempt."""
    agents = (executions.c.job_id == job.job_id, executions.c.attempt == job.attempt)
    newest = (
        select(executions.c.execution_id, executions.c.state, executions.c.reason, executions.c.message)
        .where(*agents, executions.c.purpose == Purpose.AGENT)
        .order_by(executions.c.create_time.desc(), executions.c.execution_id.desc())
        .limit(1)
    )
    return (await connection.execute(newest)).first()


async def next_attempt(connection: AsyncConnection, job: Row[Any], failure: Failure) -> str:
    """End what is still open of a job's attempt, and write the execution of the next one; return its id.

    The job's row is locked; the caller updates it.
    """
    execution_id = new_id("exec")
    await end_what_is_open(connection, job.job_id, ExecutionState.FAILED, failure.reason, failure.message)
    fresh = new_execution(execution_id, job.job_id, job.attempt + 1, Purpose.AGENT)
    await connection.execute(insert(executions).values(fresh))
    return execution_id


async def retry_later(connection: AsyncConnection, cell_id: str, job: Row[Any], retry: Retry) -> None:
    """Let a running job, whose row is locked, wait for its next attempt; see Ledger.retry.

    One that has been cancelled ends, or waits for a cell that calls its hooks for that.
    """
    if job.cancel_requested:
        if not await calls_hooks_on_cancel(connection, load(JobSpec, job.definition)):
            await end_job(connection, job, Outcome(JobState.CANCELLED))
            return
        retry = replace(retry, seconds=0, snapshot_id="", outage=None)
    execution_id = await next_attempt(connection, job, retry.failure)
    wake_time: Any = now() + round(retry.seconds * _SECOND)
    outage_since: Any = 0
    if retry.outage is not None:
        wake_time = await place_after(connection, job.project_id, retry.outage, retry)
        outage_since = now() if retry.is_new_outage or not job.outage_since else job.outage_since
        if (agent := await _newest_agent(connection, job)) is not None:
            await carry_over(connection, job.job_id, agent.execution_id, execution_id)
    is_free = retry.is_refusal or retry.outage is not None
    refusing = sorted({*job.refused_by.split(), cell_id}) if retry.is_refusal else ()
    waiting = update(jobs).where(jobs.c.job_id == job.job_id)
    await connection.execute(
        waiting.values(
            state=JobState.PENDING,
            attempt=job.attempt + 1,
            last_attempt=job.last_attempt + (1 if is_free else 0),
            refused_by=" ".join(refusing),
            refused_since=(job.refused_since or now()) if retry.is_refusal else 0,
            outage_provider=None if retry.outage is None else retry.outage.provider,
            outage_since=outage_since,
            execution_id=execution_id,
            snapshot_id=retry.snapshot_id or job.snapshot_id,
            bound_cell_id=cell_id if retry.snapshot_id else job.bound_cell_id,
            held=False,
            lease_until=0,
            wake_time=wake_time,
            revision=job.revision + 1,
        )
    )
