"""The stages of an attempt, as they begin and end. Everything here works inside the caller's transaction."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.ledger.executions import write_note
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import stages
from services.gateway.schema.sql import Insertion, storable_text
from services.lifecycle.ledger import Lease, Stage, StageEnd
from services.lifecycle.model.states import StageState

_OF_ATTEMPT: Final = (stages.c.job_id == bindparam("of_job"), stages.c.attempt == bindparam("of_attempt"))
_NEXT_NUMBER: Final = select(func.count() + 1).where(*_OF_ATTEMPT).scalar_subquery()
_RECORDED: Final = (
    select(stages.c.name, stages.c.state, stages.c.result, stages.c.message)
    .where(*_OF_ATTEMPT)
    .order_by(stages.c.number)
)
_BEGUN: Final = {"state": StageState.RUNNING, "result": "", "message": "", "start_time": NOW}
_BEGIN: Final = Insertion(stages, _BEGUN | {"number": _NEXT_NUMBER})
_END: Final = Insertion(
    stages,
    {"number": _NEXT_NUMBER, "start_time": NOW, "end_time": NOW},
    instead=("state", "result", "message", "end_time"),
    where=stages.c.state == StageState.RUNNING,
)
"""Ends a stage that runs, or records one that was never begun."""


async def recorded_stages(connection: AsyncConnection, lease: Lease) -> dict[str, Stage]:
    """Return the stages of the lease's attempt by name, in the order in which they began."""
    rows = (await connection.execute(_RECORDED, _of_attempt(lease))).all()
    return {row.name: Stage(row.name, StageState(row.state), row.result, row.message) for row in rows}


async def record_begin(connection: AsyncConnection, lease: Lease, name: str) -> None:
    """Record that a stage of the lease's attempt begins, unless it is recorded."""
    await _BEGIN.execute(connection, _key(lease, name) | _of_attempt(lease))


async def record_ends(connection: AsyncConnection, cell_id: str, lease: Lease, ended: Sequence[StageEnd]) -> None:
    """Record how stages of the lease's attempt ended, each with its notes, except for those that have ended already."""
    for each in ended:
        stage = each.stage
        told = {"state": stage.state, "result": stage.result, "message": storable_text(stage.message)}
        if await _END.execute(connection, _key(lease, stage.name) | told | _of_attempt(lease)):
            for note in each.notes:
                await write_note(connection, cell_id, lease, note)


def _of_attempt(lease: Lease) -> dict[str, Any]:
    return {"of_job": lease.job_id, "of_attempt": lease.attempt}


def _key(lease: Lease, name: str) -> dict[str, Any]:
    return {"job_id": lease.job_id, "attempt": lease.attempt, "name": name}
