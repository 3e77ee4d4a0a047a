"""Jobs and executions for callers: one, a page, or a request to end one. Each method is one transaction."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Row, Select, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.engine import reading
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, NotFound
from services.gateway import scope
from services.gateway.ledger.ending import end_job
from services.gateway.ledger.hooks import calls_hooks_on_cancel
from services.gateway.ledger.inputs import read_secrets
from services.gateway.ledger.labels import selected
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.rows import (
    BRIEF_EXECUTIONS,
    EXECUTIONS,
    JOBS,
    execution_view,
    execution_views,
    job_row,
    job_view,
    job_views,
)
from services.gateway.ledger.waiting import waits_of
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import IS_LIVE, LIVE, executions, jobs
from services.gateway.schema.ownership import Ownership, owned
from services.gateway.values.jobs import ExecutionFilter, ExecutionView, JobFilter, JobSummary, JobView
from services.gateway.values.principal import with_caller
from services.lifecycle.model.ids import execution_of_snapshot, execution_of_workspace
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from services.lifecycle.model.value import dump, load

_PAGE_CHARACTERS = 8 << 20
_LIVE_STATES: Final = frozenset(LIVE)

_JOB_KEY = (as_number(jobs.c.create_time), jobs.c.job_id)
_EXECUTION_KEY = (as_number(executions.c.create_time), executions.c.execution_id)


_RUNS: Final = executions.join(jobs, jobs.c.job_id == executions.c.job_id)


def _with_project(column: Column[Any]) -> Select[Any]:
    return select(column.label("id"), jobs.c.project_id).select_from(_RUNS)


OWNERS: Final[Mapping[str, Ownership]] = {
    "job": owned(jobs),
    "execution": Ownership(_with_project(executions.c.execution_id)),
    "workspace": Ownership(_with_project(executions.c.workspace_id)),
    "snapshot": Ownership(_with_project(executions.c.execution_id), key=execution_of_snapshot),
}
"""Who owns jobs, and what their executions make."""

_REVISIONS: Final = select(jobs.c.job_id, jobs.c.revision).where(
    jobs.c.job_id.in_(bindparam("these_jobs", expanding=True))
)


class JobStore:
    """Reads jobs and executions, and records requests to end them."""

    def __init__(self, engine: AsyncEngine, notifier: JobNotifier) -> None:
        self._engine = engine
        self._notifier = notifier

    async def job(self, job_id: str) -> JobView:
        """Return a job. Raises NotFound."""
        async with reading(self._engine) as connection:
            return await _job(connection, job_id)

    async def changed(self, known: Collection[tuple[str, int]]) -> tuple[dict[str, int], dict[str, JobView]]:
        """Return the revisions of jobs that exist, and the jobs of which another revision is known.

        A revision is a number that grows with every change. Each job but the first is read in a transaction of its own,
        as it may be large.
        """
        async with self._engine.begin() as connection:
            rows = await connection.execute(_REVISIONS, {"these_jobs": sorted({job_id for job_id, _ in known})})
            revisions: dict[str, int] = {row.job_id: row.revision for row in rows}
            changed = {job_id for job_id, revision in known if revisions.get(job_id, revision) != revision}
            views = {job_id: await _job(connection, job_id) for job_id in islice(changed, 1)}
        for job_id in changed - views.keys():
            with suppress(NotFound):  # it was removed since
                views[job_id] = await self.job(job_id)
        return revisions, views

    async def jobs(self, filters: JobFilter, page: Page) -> tuple[list[JobView], Page]:
        """Return a page of jobs in brief, newest first, one more if there is a next page, and the page as cut."""
        statement = page.select(JOBS.where(*_job_conditions(filters)), _JOB_KEY, descending=True)
        async with self._engine.begin() as connection:
            rows, page = await _bounded(connection, statement, page)
            views = await _with_waits(connection, rows, brief=True)
        return views, page

    async def number_of_jobs(self, filters: JobFilter) -> int:
        """Return how many jobs match."""
        return await self._number_of(select(func.count()).select_from(jobs).where(*_job_conditions(filters)))

    async def number_of_executions(self, filters: ExecutionFilter) -> int:
        """Return how many executions match."""
        return await self._number_of(select(func.count()).select_from(_RUNS).where(*_execution_conditions(filters)))

    async def _number_of(self, counted: Select[int]) -> int:
        async with self._engine.begin() as connection:
            return int((await connection.execute(counted)).scalar_one())

    async def brief(self, job_ids: Sequence[str]) -> list[JobView]:
        """Return those of the jobs that exist, in brief, in the order of `job_ids`."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(JOBS.where(jobs.c.job_id.in_(job_ids)))).all()
            views = await _with_waits(connection, rows, brief=True)
        by_id = {view.spec.job_id: view for view in views}
        return [by_id[job_id] for job_id in job_ids if job_id in by_id]

    async def summaries(self, filters: JobFilter, since: int | None) -> tuple[int, dict[str, JobSummary]]:
        """Return the time, and all jobs that match and are live, or have ended since a time (None: ever), newest first.

        Times are microseconds by the database's clock.
        """
        query = select(jobs.c.job_id, jobs.c.revision, jobs.c.state, jobs.c.create_time).where(
            *_job_conditions(filters)
        )
        if since is not None:  # two queries, each with an index of its own
            ended = query.where(jobs.c.state.not_in(LIVE), as_number(jobs.c.end_time) >= since)
            query = query.where(IS_LIVE).union_all(ended)  # type: ignore[assignment]
        async with self._engine.begin() as connection:
            # The time comes first, so that nothing is lost in between.
            at = (await connection.execute(select(now()))).scalar_one()
            rows = (await connection.execute(query)).all()
        newest = sorted(rows, key=lambda row: (row.create_time, row.job_id), reverse=True)
        return at, {row.job_id: JobSummary(row.revision, row.state in LIVE) for row in newest}

    async def execution(self, execution_id: str) -> ExecutionView:
        """Return an execution. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await _execution(connection, execution_id)

    async def executions(self, filters: ExecutionFilter, page: Page) -> list[ExecutionView]:
        """Return a page of executions in brief, newest first, with one more if there is a next page."""
        matching = BRIEF_EXECUTIONS.where(*_execution_conditions(filters))
        statement = page.select(matching, _EXECUTION_KEY, descending=True)
        async with self._engine.begin() as connection:
            return [execution_view(row) for row in (await connection.execute(statement)).all()]

    async def cancel_job(self, job_id: str) -> JobView:
        """Request a job's end; if nobody has it, and no hook is called for that, it ends now.

        Raises NotFound, FailedPrecondition (JOB_STATE).
        """
        async with self._engine.begin() as connection:
            await _cancel(connection, job_id)
            view = await job_view(connection, job_id)
        self._notifier.notify(job_id, work=True)
        return view

    async def cancel_execution(self, execution_id: str) -> ExecutionView:
        """Request the end of an execution's job, whatever the job is doing; see `cancel_job`."""
        async with self._engine.begin() as connection:
            job_id = (await _execution(connection, execution_id)).job_id
            await _cancel(connection, job_id)
            view = await _execution(connection, execution_id)
        self._notifier.notify(job_id, work=True)
        return view

    async def record_steering(self, execution_id: str) -> None:
        """Record that the caller tells an execution's agent what to do, if its job is running. Raises NotFound."""
        async with self._engine.begin() as connection:
            job = await job_row(connection, (await _execution(connection, execution_id)).job_id, locked=True)
            spec = load(JobSpec, job.definition)
            steered_by = with_caller(spec.steered_by)
            if steered_by != spec.steered_by and job.state == JobState.RUNNING:
                changed = update(jobs).where(jobs.c.job_id == job.job_id)
                await connection.execute(changed.values(definition=dump(replace(spec, steered_by=steered_by))))

    async def check_unused(self, workspace_id: str) -> None:
        """Raise FailedPrecondition (WORKSPACE_IN_USE) while a live job works in a workspace."""
        uses = EXECUTIONS.where(executions.c.workspace_id == workspace_id, jobs.c.state.in_(LIVE))
        async with self._engine.begin() as connection:
            row = (await connection.execute(uses)).first()
        if row is not None:
            raise FailedPrecondition(
                "WORKSPACE_IN_USE",
                f"job {row.job_id} works in workspace {workspace_id!r}: wait for its end, or cancel it",
                workspace_id,
                metadata={"job_id": row.job_id},
            )

    async def secrets_of(self, execution_id: str) -> Mapping[str, str]:
        """Return the secrets of an execution's job, with their values; none for an execution that does not exist."""
        async with self._engine.begin() as connection:
            job_id = await connection.execute(
                select(executions.c.job_id).where(executions.c.execution_id == execution_id)
            )
            return await read_secrets(connection, job_id.scalar_one_or_none() or "")

    async def cell_of_workspace(self, workspace_id: str) -> str | None:
        """Return the cell that has a workspace, or had it; None when no execution is known to have been in it."""
        made_for = executions.c.execution_id == execution_of_workspace(workspace_id)
        return await self._cell_of(or_(executions.c.workspace_id == workspace_id, made_for))

    async def cell_of_execution(self, execution_id: str) -> str | None:
        """Return the cell of an execution that has begun; None when it is not known."""
        return await self._cell_of(executions.c.execution_id == execution_id)

    async def _cell_of(self, condition: ColumnElement[bool]) -> str | None:
        query = select(executions.c.cell_id).where(condition, executions.c.cell_id != "").limit(1)
        async with self._engine.begin() as connection:
            return (await connection.execute(query)).scalar_one_or_none()


def job_key(view: JobView) -> tuple[int, str]:
    """Return the key by which pages of jobs are ordered."""
    return microseconds(view.create_time), view.spec.job_id


def execution_key(view: ExecutionView) -> tuple[int, str]:
    """Return the key by which pages of executions are ordered."""
    return microseconds(view.create_time), view.execution_id


async def _job(connection: AsyncConnection, job_id: str) -> JobView:
    (view,) = await _with_waits(connection, [await job_row(connection, job_id)])
    return view


async def _with_waits(connection: AsyncConnection, rows: Sequence[Row[Any]], *, brief: bool = False) -> list[JobView]:
    """Complete rows of jobs, as `job_views` does, and with what they wait for."""
    waits = await waits_of(connection, rows)
    views = await job_views(connection, rows, brief=brief)
    return [replace(view, waiting_for=waits.get(view.spec.job_id)) for view in views]


async def _execution(connection: AsyncConnection, execution_id: str) -> ExecutionView:
    views = await execution_views(connection, executions.c.execution_id == execution_id)
    if not views:
        raise NotFound("execution", execution_id)
    return views[0]


async def _cancel(connection: AsyncConnection, job_id: str) -> None:
    """Record the request, once. Raises NotFound, FailedPrecondition (JOB_STATE).

    A job that nobody has ends now; where hooks are to be called, once a cell has called them, which takes it for that.
    """
    row = await job_row(connection, job_id, locked=True)
    state = JobState(row.state)
    if state.is_final:
        message = f"job {job_id!r} has ended already: it is {state}"
        raise FailedPrecondition("JOB_STATE", message, job_id, state=state, allowed_states=LIVE)
    if not row.cancel_requested:
        # A job that waits for an answer wakes now, so that its cell ends what it still has there.
        this_job = update(jobs).where(jobs.c.job_id == job_id)
        await connection.execute(this_job.values(cancel_requested=True, wake_time=now(), revision=row.revision + 1))
    if state is not JobState.PENDING:
        return
    if await calls_hooks_on_cancel(connection, load(JobSpec, row.definition)):
        for_any_cell = update(jobs).where(jobs.c.job_id == job_id).values(bound_cell_id="", refused_by="")
        await connection.execute(for_any_cell)
    else:
        await end_job(connection, row, Outcome(JobState.CANCELLED))


async def _bounded(connection: AsyncConnection, statement: Select[Any], page: Page) -> tuple[list[Row[Any]], Page]:
    """Read a page of jobs, which ends early when their definitions are large: each may have a million characters."""
    rows: list[Row[Any]] = []
    size = 0
    async with connection.stream(statement) as stream:
        async for row in stream:
            rows.append(row)
            if size > _PAGE_CHARACTERS:  # the page ends before this one
                return rows, replace(page, size=len(rows) - 1)
            size += len(row.definition)
    return rows, page


def _job_conditions(filters: JobFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a filter of jobs."""
    if filters.visible is not None:
        yield jobs.c.project_id.in_(sorted(filters.visible))
    if filters.project_id:
        yield jobs.c.project_id == filters.project_id
    if filters.states == _LIVE_STATES:
        yield IS_LIVE  # the same text as in a partial index, which is small
    elif filters.states:
        yield jobs.c.state.in_(sorted(filters.states))
    if filters.kinds:
        yield jobs.c.kind.in_(sorted(filters.kinds))
    if filters.worker_id:
        yield jobs.c.worker_id == filters.worker_id
    if filters.work_item_id:
        yield jobs.c.work_item_id == filters.work_item_id
    yield from map(selected, filters.labels)
    if filters.created_after_time is not None:
        yield jobs.c.create_time >= filters.created_after_time
    if filters.created_before_time is not None:
        yield jobs.c.create_time < filters.created_before_time


def _execution_conditions(filters: ExecutionFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a filter of executions, and of what the caller may see."""
    yield from scope.within(jobs.c.project_id)
    named = (
        (filters.project_id, jobs.c.project_id),
        (filters.job_id, executions.c.job_id),
        (filters.worker_id, jobs.c.worker_id),
        (filters.work_item_id, jobs.c.work_item_id),
    )
    yield from (column == value for value, column in named if value)
    if filters.states:
        yield executions.c.state.in_(sorted(filters.states))
    if filters.purposes:
        yield executions.c.purpose.in_(sorted(filters.purposes))
