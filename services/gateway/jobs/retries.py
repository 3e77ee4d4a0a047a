"""Retries jobs that have ended, on a person's request."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.errors import FailedPrecondition
from services.common.text import lossy
from services.gateway.catalog.store import REPOSITORIES
from services.gateway.jobs.allowances import allowances_of, check_agent, check_allowed
from services.gateway.jobs.floors import NOTHING, bound_again
from services.gateway.ledger.attempts import next_attempt
from services.gateway.ledger.budgets.uses import OWN, tell_again
from services.gateway.ledger.executions import cell_of_snapshot
from services.gateway.ledger.fleet import choices_to_columns, members
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.rows import job_row, job_view
from services.gateway.ledger.totals import keep_count
from services.gateway.ledger.work_items import occupy
from services.gateway.schema import idempotency
from services.gateway.schema.clock import NOW
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.jobs import executions, jobs
from services.gateway.values.jobs import JobView
from services.gateway.values.principal import with_caller
from services.lifecycle.model.budgets import BudgetLimits
from services.lifecycle.model.job_spec import JobSpec, KeptResult
from services.lifecycle.model.outcome import Failure
from services.lifecycle.model.output import Output
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState, Purpose
from services.lifecycle.model.value import dump, load

_RETRIABLE: Final = (JobState.FAILED, JobState.CANCELLED)
_PUSHABLE: Final = (*_RETRIABLE, JobState.SUCCEEDED)


class Retries:
    """Retries jobs that have ended."""

    def __init__(self, engine: AsyncEngine, notifier: JobNotifier) -> None:
        self._engine = engine
        self._notifier = notifier

    async def retry(
        self, job_id: str, *, from_snapshot: bool, key: IdempotencyKey | None, budget: BudgetLimits | None = None
    ) -> JobView:
        """Put a job that FAILED or was CANCELLED into the queue again, with as many attempts as it had at first.

        With a `budget` in place of its own it continues from its last snapshot, if there is one. Raises NotFound,
        FailedPrecondition (JOB_STATE, NO_SNAPSHOT, WORK_ITEM_BUSY, BELOW_FLOOR), AlreadyExists (REQUEST_ID_REUSED), and
        what check_agent does.
        """

        async def again(connection: AsyncConnection, job: Row[Any]) -> None:
            _check_state(job, _RETRIABLE)
            spec = load(JobSpec, job.definition)
            left = ("", "")
            with suppress(*(() if from_snapshot else (FailedPrecondition,))):
                if from_snapshot or budget is not None:
                    left = await _last_snapshot(connection, job, spec.kept)
            asked: Policy[None] = Policy(budget=budget)
            policy = spec.policy
            if budget is not None:
                policy = replace(policy, budget=budget)
                await tell_again(connection, OWN, job_id)
            spec = replace(spec, policy=policy, kept=None)
            await _begin_again(connection, job, spec, asked=asked, snapshot_id=left[0], cell_id=left[1])

        return await self._again(job_id, key, again)

    async def snapshot_left(self, job_id: str) -> str:
        """Return the snapshot from which a retry would continue; empty for a job that cannot be retried now.

        Raises NotFound, FailedPrecondition (NO_SNAPSHOT).
        """
        async with self._engine.begin() as connection:
            job = await job_row(connection, job_id)
            if JobState(job.state) not in _RETRIABLE:
                return ""
            return (await _last_snapshot(connection, job, load(JobSpec, job.definition).kept))[0]

    async def push(
        self,
        job_id: str,
        *,
        branch: bytes = b"",
        result: tuple[KeptResult, str] | None = None,
        key: IdempotencyKey | None,
    ) -> JobView:
        """Put a job that has ended into the queue again, to publish what its last attempt left, to `branch` if given.

        With `result`, which is in the store of the cell beside it, that is published instead.

        Raises as `retry` does, but NO_RESULT in place of NO_SNAPSHOT.
        """

        async def again(connection: AsyncConnection, job: Row[Any]) -> None:
            _check_state(job, _PUSHABLE)
            spec = load(JobSpec, job.definition)
            if not spec.repository_id and (branch or job.state == JobState.SUCCEEDED):
                message = f"job {job.job_id!r} has no repository to which its result could be pushed"
                raise FailedPrecondition("NO_RESULT", message, job.job_id)
            kept, cell_id = result or await _last_result(connection, job, spec.kept, branch or spec.branch)
            kept = replace(kept, ended_as=job.state)
            spec = replace(spec, kept=kept, branch=branch or spec.branch)
            await _begin_again(connection, job, spec, cell_id=cell_id)

        return await self._again(job_id, key, again)

    async def answered(self, job_id: str, key: IdempotencyKey | None) -> JobView | None:
        """Return the job when the same call was made before; None when this is the first. Raises as `push` does."""
        async with self._engine.begin() as connection:
            job = await job_row(connection, job_id)
            if await idempotency.find(connection, key, job.project_id) is None:
                return None
            return await job_view(connection, job_id)

    async def _again(
        self, job_id: str, key: IdempotencyKey | None, again: Callable[[AsyncConnection, Row[Any]], Awaitable[None]]
    ) -> JobView:
        async with self._engine.begin() as connection:
            job = await job_row(connection, job_id, locked=True)
            if await idempotency.claim(connection, key, job.project_id, job_id) is None:
                await again(connection, job)
            view = await job_view(connection, job_id)
        self._notifier.notify(job_id, work=True)
        return view


def _check_state(job: Row[Any], allowed: Sequence[JobState]) -> None:
    if JobState(job.state) not in allowed:
        is_push = JobState.SUCCEEDED in allowed
        only = "what has ended can be pushed" if is_push else "what has failed or was cancelled can be retried"
        raise _state(job, f"job {job.job_id!r} is {job.state}: only {only}", allowed)


def _state(job: Row[Any], message: str, allowed: Sequence[JobState]) -> FailedPrecondition:
    return FailedPrecondition("JOB_STATE", message, job.job_id, state=job.state, allowed_states=allowed)


async def _begin_again(
    connection: AsyncConnection,
    job: Row[Any],
    admitted: JobSpec,
    *,
    asked: Policy[None] = NOTHING,
    snapshot_id: str = "",
    cell_id: str = "",
) -> None:
    if admitted.repository_id:
        await REPOSITORIES.get(connection, admitted.repository_id, hold="share")
    if job.work_item_id:
        await occupy(connection, job.work_item_id, takes_any=admitted.kept is not None)
    spec = replace(await bound_again(connection, admitted, asked), submitters=with_caller(admitted.submitters))
    fleet = await members(connection)
    check_agent(spec.agent, fleet) if spec.kept is None else check_allowed(spec.agent, allowances_of(fleet))
    if spec.kept is not None and any(each.floor.never_pushed for each in spec.floors):
        raise FailedPrecondition("BELOW_FLOOR", "a floor of the job's lets nothing be pushed", job.job_id)
    since: datetime = (await connection.execute(select(NOW))).scalar_one()
    await keep_count(connection, [job.job_id], goes_on=True)
    execution_id = await next_attempt(connection, job, Failure(job.reason, job.message))
    again = update(jobs).where(jobs.c.job_id == job.job_id)
    await connection.execute(
        again.values(
            definition=dump(spec),
            **choices_to_columns(spec.agent),
            state=JobState.PENDING,
            reason="",
            message="",
            cancel_requested=False,
            attempt=job.attempt + 1,
            last_attempt=job.attempt + spec.policy.max_attempts,
            execution_id=execution_id,
            snapshot_id=snapshot_id,
            bound_cell_id=cell_id,
            waits_for_cell=cell_id != "",
            refused_by="",
            refused_since=0,
            outage_provider=None,
            outage_since=0,
            # It stands in the queue as if it had come now, with the priority that it has.
            turn=job.turn + microseconds(since) - as_number(jobs.c.create_time),
            wake_time=microseconds(since),
            revision=job.revision + 1,
            end_time=None,
        )
    )


async def _last_snapshot(connection: AsyncConnection, job: Row[Any], kept: KeptResult | None) -> tuple[str, str]:
    """Return the snapshot that a job's last attempt left, and its cell. Raises FailedPrecondition (NO_SNAPSHOT).

    An attempt that left none, as its agent never began or its cell was lost, left the one that it began from.
    """
    for output, cell_id in await _left(connection, job, kept):  # one for each round; the last one's has it
        if output.snapshot_id:
            return output.snapshot_id, cell_id
    if not job.snapshot_id:
        raise FailedPrecondition(
            "NO_SNAPSHOT",
            f"the last attempt of job {job.job_id!r} left nothing to continue from: nothing had changed, its agent"
            " never began, or its cell was lost; retry the job from its beginning",
            job.job_id,
        )
    return job.snapshot_id, await cell_of_snapshot(connection, job.snapshot_id)


async def _last_result(
    connection: AsyncConnection, job: Row[Any], kept: KeptResult | None, branch: bytes
) -> tuple[KeptResult, str]:
    """Return the last result of a job's last attempt, and its cell.

    Raises FailedPrecondition: NO_RESULT when there is none, also when the last round took back what another had done;
    JOB_STATE when it has been pushed to the branch already.
    """
    taken = (one for one in await _left(connection, job, kept) if one[0].commit_id and one[0].base_commit_id)
    output, cell_id = next(taken, (Output(), ""))
    if output.commit_id == output.base_commit_id:
        message = f"the last attempt of job {job.job_id!r} left no result that could be pushed: retry the job"
        raise FailedPrecondition("NO_RESULT", message, job.job_id)
    if output.pushed and output.branch == branch:
        message = f"the result of job {job.job_id!r} has been pushed to {lossy(branch)} already: name another branch"
        raise _state(job, message, _RETRIABLE)
    caveats = tuple(caveat for caveat in output.caveats if not caveat.is_of_base)
    return KeptResult(output.commit_id, output.base_commit_id, output.agent_commits, caveats), cell_id


async def _left(connection: AsyncConnection, job: Row[Any], kept: KeptResult | None) -> list[tuple[Output, str]]:
    """Return the outputs of a job's last attempt, each with its cell, the newest first.

    An attempt that was to publish a result that is kept has left, in whatever way it failed, what that result's has.
    """
    columns = select(executions.c.attempt, executions.c.output, executions.c.cell_id)
    of_agents = columns.where(executions.c.job_id == job.job_id, executions.c.purpose == Purpose.AGENT)
    rows = (await connection.execute(of_agents.order_by(executions.c.create_time.desc()))).all()
    outputs = [(row.attempt, load(Output, row.output), row.cell_id) for row in rows]
    attempts = {job.attempt, *(number for number, output, _ in outputs if kept and output.commit_id == kept.commit_id)}
    return [(output, cell_id) for number, output, cell_id in outputs if number in attempts]
