"""Executions as they are recorded: new ones, what becomes known of them, and their end with their job."""

from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import Moment
from services.gateway.ledger.attempt_ids import check_of_attempt
from services.gateway.ledger.rows import output_from_columns, output_to_columns
from services.gateway.ledger.usage import write_usage
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import executions, stages
from services.gateway.schema.sql import insert_if_absent, storable_text
from services.lifecycle.ledger import Lease
from services.lifecycle.model.ids import execution_of_snapshot
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import ExecutionState, Purpose, StageState

_NOTE: Final = (
    update(executions)
    # Only of the lease's job: a machine may not write about jobs that it does not hold.
    .where(executions.c.execution_id == bindparam("this"), executions.c.job_id == bindparam("of_job"))
    .values(start_time=func.coalesce(executions.c.start_time, bindparam("began", type_=Moment)))
)
_AGENT: Final = (
    select(executions)
    .where(
        executions.c.job_id == bindparam("of_job"),
        executions.c.attempt == bindparam("of_attempt"),
        executions.c.purpose == Purpose.AGENT,
    )
    .order_by(executions.c.create_time.desc(), executions.c.execution_id.desc())
    .limit(1)
)


def new_execution(execution_id: str, job_id: str, attempt: int, purpose: Purpose) -> dict[str, Any]:
    """Return the row of an execution that has not begun."""
    return {
        "execution_id": execution_id,
        "job_id": job_id,
        "purpose": purpose,
        "attempt": attempt,
        "workspace_id": "",
        "cell_id": "",
        "state": ExecutionState.PENDING,
        "reason": "",
        "message": "",
        "create_time": NOW,
        **output_to_columns(Output()),
    }


async def cell_of_snapshot(connection: AsyncConnection, snapshot_id: str) -> str:
    """Return the cell that has the snapshot, where the job must run; empty without a snapshot or a known cell."""
    if not snapshot_id:
        return ""
    query = select(executions.c.cell_id).where(executions.c.execution_id == execution_of_snapshot(snapshot_id))
    return (await connection.execute(query)).scalar_one_or_none() or ""


async def write_note(connection: AsyncConnection, cell_id: str, lease: Lease, note: ExecutionNote) -> None:
    """Record what is known of an execution of the lease's attempt on a cell, whether it is recorded already or not.

    When it began does not change any more once it is recorded. Raises Invalid for another attempt's.
    """
    check_of_attempt(lease, note.execution_id)
    known = {
        "workspace_id": note.workspace_id,
        "cell_id": cell_id,
        "state": note.state,
        "reason": note.reason,
        "message": storable_text(note.message),
        "end_time": note.end_time,
        **output_to_columns(note.output),
    }
    this = {"this": note.execution_id, "of_job": lease.job_id, "began": note.start_time}
    if (await connection.execute(_NOTE, known | this)).rowcount == 0:
        row = new_execution(note.execution_id, lease.job_id, lease.attempt, note.purpose)
        await insert_if_absent(connection, executions, row | known | {"start_time": note.start_time})
    await write_usage(connection, lease, note)


async def note_of_agent(connection: AsyncConnection, lease: Lease) -> ExecutionNote:
    """Return what is recorded of the agent of the lease's attempt: of the last round's."""
    row = (await connection.execute(_AGENT, {"of_job": lease.job_id, "of_attempt": lease.attempt})).one()
    return ExecutionNote(
        execution_id=row.execution_id,
        purpose=Purpose(row.purpose),
        workspace_id=row.workspace_id,
        state=ExecutionState(row.state),
        reason=row.reason,
        message=row.message,
        start_time=row.start_time,
        end_time=row.end_time,
        output=output_from_columns(row.output, row.bulk),
    )


async def pushed_before(connection: AsyncConnection, lease: Lease) -> tuple[str, ...]:
    """Return the commits of earlier attempts whose push had begun: the branch may be at one, confirmed or not."""
    if lease.attempt == 1:
        return ()
    begun = and_(
        stages.c.job_id == executions.c.job_id, stages.c.attempt == executions.c.attempt, stages.c.name == "push"
    )
    earlier = (
        select(executions.c.output, executions.c.bulk)
        .join(stages, begun)
        .where(
            executions.c.job_id == lease.job_id,
            executions.c.attempt < lease.attempt,
            executions.c.purpose == Purpose.AGENT,
        )
    )
    rows = (await connection.execute(earlier)).all()
    return tuple(output_from_columns(row.output, row.bulk).commit_id for row in rows)


def running_stage(lease: Lease, name: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of a stage of the lease's attempt that has begun and not ended."""
    return (
        stages.c.job_id == lease.job_id,
        stages.c.attempt == lease.attempt,
        stages.c.name == name,
        stages.c.state == StageState.RUNNING,
    )
