"""Reads the ledger's rows as jobs and executions. Everything here works inside the caller's transaction."""

from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, Row, Select, bindparam, case, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFound
from services.gateway.ledger.budgets.uses import own_uses
from services.gateway.ledger.questions import checkpoints_of
from services.gateway.schema.jobs import executions, jobs, stages
from services.gateway.schema.sql import JsonText
from services.gateway.values.budgets import BudgetUse
from services.gateway.values.checkpoints import Checkpoint
from services.gateway.values.jobs import ExecutionView, JobView, StageView
from services.lifecycle.model.hook_answers import HookAnswer
from services.lifecycle.model.job_context import HookResult, Hooks
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.output import DiffSummary, Output
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState
from services.lifecycle.model.value import dump, load

_BRIEF = tuple(column for column in executions.c if column is not executions.c.bulk)
_JOB_OF = (
    jobs.c.state.label("job_state"),
    jobs.c.reason.label("job_reason"),
    JsonText(jobs.c.definition, "branch").label("branch"),
    jobs.c.project_id,
    jobs.c.template_id,
    jobs.c.worker_id,
    jobs.c.work_item_id,
    jobs.c.repository_id,
)
_JOINED = (executions, jobs, executions.c.job_id == jobs.c.job_id)
EXECUTIONS: Select[Any] = select(executions, *_JOB_OF).join_from(*_JOINED)
BRIEF_EXECUTIONS: Select[Any] = select(*_BRIEF, *_JOB_OF).join_from(*_JOINED)
JOBS: Final = select(*(column for column in jobs.c if column is not jobs.c.secrets))
"""Rows of jobs. Secrets are opened only for whoever needs them."""

_JOB: Final = JOBS.where(jobs.c.job_id == bindparam("this_job"))
_LOCKED_JOB: Final = _JOB.with_for_update()
_THESE_JOBS: Final[BindParameter[Sequence[str]]] = bindparam("these_jobs", expanding=True)
_IS_AGENT: Final = (executions.c.job_id.in_(_THESE_JOBS), executions.c.purpose == Purpose.AGENT)
_IN_ORDER: Final = (executions.c.attempt, executions.c.create_time, executions.c.execution_id)
_AGENTS: Final = EXECUTIONS.where(*_IS_AGENT).order_by(*_IN_ORDER)
_BRIEF_AGENTS: Final = BRIEF_EXECUTIONS.where(*_IS_AGENT).order_by(*_IN_ORDER)
_HAS_HOOKS: Final = or_(stages.c.name == "hooks", stages.c.name.contains("-hook-"))
_STAGES: Final[Select[Any]] = (
    select(
        *(column for column in stages.c if column is not stages.c.result),
        case((_HAS_HOOKS, stages.c.result), else_="").label("result"),  # that of other stages may be large
    )
    .where(stages.c.job_id.in_(_THESE_JOBS))
    .order_by(stages.c.job_id, stages.c.attempt, stages.c.number)
)


async def job_view(connection: AsyncConnection, job_id: str, *, brief: bool = False) -> JobView:
    """Return a job with everything that is recorded of it, or in brief. Raises NotFound."""
    (view,) = await job_views(connection, [await job_row(connection, job_id)], brief=brief)
    return view


async def job_row(connection: AsyncConnection, job_id: str, *, locked: bool = False) -> Row[Any]:
    """Return a job's row; `locked` locks it until the transaction ends. Raises NotFound."""
    row = (await connection.execute(_LOCKED_JOB if locked else _JOB, {"this_job": job_id})).first()
    if row is None:
        raise NotFound("job", job_id)
    return row


async def job_views(connection: AsyncConnection, rows: Sequence[Row[Any]], *, brief: bool = False) -> list[JobView]:
    """Complete rows of jobs with their agents' executions and, unless `brief`, timeline, checkpoints and all output."""
    job_ids = [row.job_id for row in rows]
    executions_by_job: dict[str, list[ExecutionView]] = defaultdict(list)
    stages_by_job: dict[str, list[StageView]] = defaultdict(list)
    of_jobs = {"these_jobs": job_ids}
    for execution in (await connection.execute(_BRIEF_AGENTS if brief else _AGENTS, of_jobs)).all():
        executions_by_job[execution.job_id].append(execution_view(execution))
    specs = {row.job_id: load(JobSpec, row.definition) for row in rows}
    uses = await own_uses(connection, [job_id for job_id in job_ids if not specs[job_id].policy.budget.is_open])
    checkpoints: Mapping[str, list[Checkpoint]] = {}
    if not brief:
        checkpoints = await checkpoints_of(connection, job_ids)
        begun = await connection.execute(_STAGES, of_jobs)
        for (job_id, _), of_attempt in groupby(begun, lambda row: (row.job_id, row.attempt)):
            stages_by_job[job_id] += _stage_views(list(of_attempt))
    return [
        _job_view(
            row,
            executions_by_job[row.job_id],
            stages_by_job[row.job_id],
            checkpoints.get(row.job_id, ()),
            spec=specs[row.job_id],
            budget_use=uses.get(row.job_id),
        )
        for row in rows
    ]


async def execution_views(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[ExecutionView]:
    """Return the executions that meet all conditions."""
    rows = (await connection.execute(EXECUTIONS.where(*conditions))).all()
    return [execution_view(row) for row in rows]


def execution_view(row: Row[Any]) -> ExecutionView:
    """Read a row of EXECUTIONS, or of BRIEF_EXECUTIONS."""
    return ExecutionView(
        execution_id=row.execution_id,
        job_id=row.job_id,
        job_state=JobState(row.job_state),
        job_reason=row.job_reason,
        project_id=row.project_id,
        template_id=row.template_id,
        worker_id=row.worker_id,
        work_item_id=row.work_item_id,
        repository_id=row.repository_id,
        branch=b64decode(row.branch or ""),
        purpose=Purpose(row.purpose),
        attempt=row.attempt,
        workspace_id=row.workspace_id,
        cell_id=row.cell_id,
        state=ExecutionState(row.state),
        reason=row.reason,
        message=row.message,
        output=output_from_columns(row.output, getattr(row, "bulk", None)),
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
    )


def _job_view(
    row: Row[Any],
    agent_executions: Iterable[ExecutionView],
    timeline: Iterable[StageView],
    checkpoints: Iterable[Checkpoint],
    *,
    spec: JobSpec,
    budget_use: BudgetUse | None,
) -> JobView:
    return JobView(
        spec=spec,
        state=JobState(row.state),
        reason=row.reason,
        message=row.message,
        cell_id=row.cell_id,
        cancel_requested=row.cancel_requested,
        revision=row.revision,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        executions=tuple(agent_executions),
        timeline=tuple(timeline),
        checkpoints=tuple(checkpoints),
        budget_use=budget_use,
    )


def _stage_views(rows: Sequence[Row[Any]]) -> Iterable[StageView]:
    """Read the stages of an attempt. Its hooks are recorded in one of them, before they are called in others."""
    chosen = next((row.result for row in rows if row.name == "hooks" and row.state == StageState.DONE), None)
    hooks = Hooks() if chosen is None else load(Hooks, chosen)
    for row in rows:
        hook = hooks.called_in(row.name)
        is_done = row.state == StageState.DONE
        yield StageView(
            name=row.name,
            state=StageState(row.state),
            message=row.message,
            hook_id=hook.hook_id if hook else "",
            added=load(HookResult, row.result).answer if "-hook-" in row.name and is_done else HookAnswer(),
            start_time=row.start_time,
            end_time=row.end_time,
        )


def output_to_columns(output: Output) -> dict[str, str]:
    """Return an output as its two columns: what lists show, and what is large."""
    changes = output.changes
    large = Output(changes=DiffSummary(files=changes.files, diff=changes.diff), log_tail=output.log_tail)
    small = replace(output, changes=replace(changes, files=(), diff=b""), log_tail=b"")
    return {"output": dump(small), "bulk": dump(large)}


def output_from_columns(small: str, large: str | None) -> Output:
    """Return the output of its two columns; of the first one only, it is what lists show."""
    output = load(Output, small)
    if large is None:
        return output
    bulk = load(Output, large)
    changes = replace(output.changes, files=bulk.changes.files, diff=bulk.changes.diff)
    return replace(output, changes=changes, log_tail=bulk.log_tail)
