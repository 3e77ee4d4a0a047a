"""Checkpoints, recorded with their jobs. Everything here works inside the caller's transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import Moment, as_number
from services.gateway.ledger.attempt_ids import check_of_attempt
from services.gateway.schema.checkpoints import checkpoints
from services.gateway.schema.clock import NOW, now
from services.gateway.schema.sql import insert_if_absent, storable_text
from services.gateway.values.checkpoints import Checkpoint, Decider
from services.lifecycle.ledger import Lease
from services.lifecycle.model.checkpoint import CheckpointState, Decision, Origin, Question
from services.lifecycle.model.output import Output
from services.lifecycle.model.value import dump, load

_SECOND: Final = 1_000_000
IS_OVER: Final = as_number(checkpoints.c.expire_time) <= now()
_UNANSWERED: Final = checkpoints.c.state == CheckpointState.PENDING

IS_OPEN: Final = and_(_UNANSWERED, ~IS_OVER)
"""The condition of a checkpoint that may be answered."""

OPEN_QUESTIONS: Final = and_(checkpoints.c.job_id == bindparam("this_job"), IS_OPEN)
"""Those of the job `this_job`."""

SELECT: Final[Select[Any]] = select(checkpoints, IS_OVER.label("is_over"))
"""The query of rows for `checkpoint_of`."""

_OF_JOBS: Final = SELECT.where(checkpoints.c.job_id.in_(bindparam("these_jobs", expanding=True))).order_by(
    checkpoints.c.create_time, checkpoints.c.checkpoint_id
)


def in_states(states: frozenset[CheckpointState]) -> ColumnElement[bool]:
    """Return the condition of being in one of some states now."""
    derived = {CheckpointState.PENDING: IS_OPEN, CheckpointState.EXPIRED: and_(_UNANSWERED, IS_OVER)}
    written = sorted(states - derived.keys())
    return or_(checkpoints.c.state.in_(written), *(derived[state] for state in states & derived.keys()))


def checkpoint_of(row: Row[Any]) -> Checkpoint:
    """Read a row of SELECT."""
    state = CheckpointState(row.state)
    expired = state is CheckpointState.PENDING and row.is_over
    return Checkpoint(
        checkpoint_id=row.checkpoint_id,
        job_id=row.job_id,
        project_id=row.project_id,
        execution_id=row.execution_id,
        name=row.name,
        origin=Origin(row.origin),
        question=row.question,
        round=row.round,
        takes_changes=row.takes_changes,
        output=load(Output, row.output),
        state=CheckpointState.EXPIRED if expired else state,
        comment=row.comment,
        decider=Decider(name=row.decided_by, peer=row.decided_peer, via=row.decided_via),
        create_time=row.create_time,
        expire_time=row.expire_time,
        decide_time=row.expire_time if expired else row.decide_time,
    )


async def checkpoints_of(connection: AsyncConnection, job_ids: Sequence[str]) -> Mapping[str, list[Checkpoint]]:
    """Return the checkpoints of some jobs, by job, oldest first."""
    by_job: defaultdict[str, list[Checkpoint]] = defaultdict(list)
    for row in (await connection.execute(_OF_JOBS, {"these_jobs": job_ids})).all():
        by_job[row.job_id].append(checkpoint_of(row))
    return by_job


async def write_question(connection: AsyncConnection, lease: Lease, question: Question) -> Checkpoint:
    """Write a question of the lease's attempt unless it exists; return it as it is. Raises Invalid for another's."""
    check_of_attempt(lease, question.execution_id)
    checkpoint_id = _id_of(lease, question.name)
    row = {
        "checkpoint_id": checkpoint_id,
        "job_id": lease.job_id,
        "project_id": lease.spec.project_id,
        "execution_id": question.execution_id,
        "name": question.name,
        "origin": question.origin,
        "question": storable_text(question.text),
        "round": question.round,
        "takes_changes": question.takes_changes,
        "output": dump(question.output),
        "state": CheckpointState.PENDING,
        **dict.fromkeys(("comment", "decided_by", "decided_peer", "decided_via"), ""),
        "create_time": NOW,
        "expire_time": type_coerce(now() + round(question.seconds * _SECOND), Moment),
    }
    await insert_if_absent(connection, checkpoints, row)
    query = SELECT.where(checkpoints.c.checkpoint_id == checkpoint_id)
    return checkpoint_of((await connection.execute(query)).one())


async def decision_on(connection: AsyncConnection, lease: Lease, name: str) -> Decision | None:
    """Return the decision on a question of the lease's attempt, or None; see Ledger.decision."""
    row = (await connection.execute(SELECT.where(checkpoints.c.checkpoint_id == _id_of(lease, name)))).first()
    checkpoint = None if row is None else checkpoint_of(row)
    if checkpoint is None or checkpoint.state is CheckpointState.PENDING:
        return None
    return Decision(checkpoint.state, checkpoint.comment, checkpoint.decider.name)


async def withdraw(connection: AsyncConnection, job_id: str) -> None:
    """Withdraw the open questions of a job, because it has ended, or because its next attempt asks again."""
    still_open = update(checkpoints).where(OPEN_QUESTIONS).values(state=CheckpointState.WITHDRAWN, decide_time=NOW)
    await connection.execute(still_open, {"this_job": job_id})


def _id_of(lease: Lease, name: str) -> str:
    """Return the id of an attempt's question. It is made from the agent's execution, so another attempt asks anew."""
    return f"check-{lease.execution_id.removeprefix('exec-')}-{name}"
