"""Checkpoints in SQL, as callers read and decide them. Each method is one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, NotFound, PermissionDenied
from services.gateway import scope
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.parking import wake
from services.gateway.ledger.questions import IS_OPEN, SELECT, checkpoint_of, in_states
from services.gateway.ledger.rows import job_row
from services.gateway.schema.checkpoints import checkpoints
from services.gateway.schema.clock import NOW
from services.gateway.schema.ownership import Ownership, owned
from services.gateway.values.checkpoints import Checkpoint, CheckpointDecision, CheckpointFilter
from services.lifecycle.model.checkpoint import CheckpointState, Origin
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.value import load

OWNERS: Final[Mapping[str, Ownership]] = {"checkpoint": owned(checkpoints)}
"""How to look up which project owns a checkpoint."""

_KEY = (as_number(checkpoints.c.create_time), checkpoints.c.checkpoint_id)


class CheckpointStore:
    """Reads checkpoints, and records decisions."""

    def __init__(self, engine: AsyncEngine, notifier: JobNotifier) -> None:
        self._engine = engine
        self._notifier = notifier

    async def get(self, checkpoint_id: str) -> Checkpoint:
        """Return a checkpoint. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await _get(connection, checkpoint_id)

    async def page(self, filters: CheckpointFilter, page: Page) -> list[Checkpoint]:
        """Return a page of checkpoints, the newest first, plus one more when there is a next page."""
        statement = SELECT.where(*_conditions(filters))
        async with self._engine.begin() as connection:
            rows = (await connection.execute(page.select(statement, _KEY, descending=True))).all()
        return [checkpoint_of(row) for row in rows]

    async def number_of(self, filters: CheckpointFilter) -> int:
        """Return how many checkpoints match."""
        counted = select(func.count()).select_from(checkpoints).where(*_conditions(filters))
        async with self._engine.begin() as connection:
            return (await connection.execute(counted)).scalar_one()

    async def ids(self, filters: CheckpointFilter) -> list[str]:
        """Return the ids of all checkpoints that match, the oldest first."""
        statement = select(checkpoints.c.checkpoint_id).where(*_conditions(filters)).order_by(*_KEY)
        async with self._engine.begin() as connection:
            return list((await connection.execute(statement)).scalars())

    async def several(self, checkpoint_ids: Sequence[str]) -> list[Checkpoint]:
        """Return those of some checkpoints that exist, the oldest first."""
        statement = SELECT.where(checkpoints.c.checkpoint_id.in_(checkpoint_ids)).order_by(*_KEY)
        async with self._engine.begin() as connection:
            return [checkpoint_of(row) for row in (await connection.execute(statement)).all()]

    async def decide(self, checkpoint_id: str, decision: CheckpointDecision) -> tuple[Checkpoint, bool]:
        """Record a decision and wake the job; return the checkpoint as it then is, and True when it takes effect.

        It does not when another decision came first, or the checkpoint has expired. Raises NotFound,
        FailedPrecondition (CHANGES_NOT_POSSIBLE) when changes are requested at a checkpoint that does not take them,
        PermissionDenied (APPROVAL_BY_SUBMITTER) when a floor wants that somebody else approves.
        """
        async with self._engine.begin() as connection:
            # The job is locked first, as wherever both are written; of two decisions, one waits here for the other.
            job = await job_row(connection, (await _get(connection, checkpoint_id)).job_id, locked=True)
            checkpoint = await _get(connection, checkpoint_id)
            if checkpoint.state is CheckpointState.PENDING and not _allows(checkpoint, decision):
                raise FailedPrecondition(
                    "CHANGES_NOT_POSSIBLE",
                    f"changes cannot be requested at {checkpoint.name!r}: approve it, or reject it",
                    checkpoint_id,
                )
            if decision.state is CheckpointState.APPROVED and checkpoint.origin is not Origin.AGENT:
                _check_approver(load(JobSpec, job.definition), decision.decider.name)
            open_checkpoint = update(checkpoints).where(checkpoints.c.checkpoint_id == checkpoint_id, IS_OPEN)
            written = await connection.execute(
                open_checkpoint.values(
                    state=decision.state,
                    comment=decision.comment,
                    decided_by=decision.decider.name,
                    decided_peer=decision.decider.peer,
                    decided_via=decision.decider.via,
                    decide_time=NOW,
                )
            )
            takes_effect = written.rowcount == 1
            if takes_effect:
                await wake(connection, job)
            decided = await _get(connection, checkpoint_id)
        if takes_effect:
            self._notifier.notify(decided.job_id, work=True)
        return decided, takes_effect


def checkpoint_key(checkpoint: Checkpoint) -> tuple[int, str]:
    """Return the key by which pages of checkpoints are ordered."""
    return microseconds(checkpoint.create_time), checkpoint.checkpoint_id


def _conditions(filters: CheckpointFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a filter, and of what the caller may see."""
    yield from scope.within(checkpoints.c.project_id)
    if filters.project_id:
        yield checkpoints.c.project_id == filters.project_id
    if filters.job_id:
        yield checkpoints.c.job_id == filters.job_id
    if filters.states:
        yield in_states(filters.states)


def _check_approver(spec: JobSpec, name: str) -> None:
    wanted_by = next((each.set_by for each in spec.floors if each.floor.approved_by_others), "")
    if wanted_by and name in (*spec.submitters, *spec.steered_by):
        did = "submitted or retried this job" if name in spec.submitters else "told this job's agent what to do"
        raise PermissionDenied(
            f"{name!r} {did}, and the floor of {wanted_by} wants the approval of somebody else",
            reason="APPROVAL_BY_SUBMITTER",
            metadata={"set_by": wanted_by},
        )


def _allows(checkpoint: Checkpoint, decision: CheckpointDecision) -> bool:
    return checkpoint.takes_changes or decision.state is not CheckpointState.CHANGES_REQUESTED


async def _get(connection: AsyncConnection, checkpoint_id: str) -> Checkpoint:
    row = (await connection.execute(SELECT.where(checkpoints.c.checkpoint_id == checkpoint_id))).first()
    if row is None:
        raise NotFound("checkpoint", checkpoint_id)
    return checkpoint_of(row)
