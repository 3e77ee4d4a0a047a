"""Checkpoints as callers ask for them, and their answers. Each method is one transaction."""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.commit_events import publish_on_commit
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, NotFound
from services.gateway.auth import scope
from services.gateway.checkpoints.model import Answer, Checkpoint, CheckpointFilter
from services.gateway.checkpoints.parking import wake
from services.gateway.checkpoints.rows import IS_OPEN, SELECT, checkpoint_of, in_states
from services.gateway.checkpoints.tables import checkpoints
from services.gateway.facts import Questions
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.rows import job_row
from services.gateway.jobs.tables import NOW
from services.lifecycle.model.checkpoint import CheckpointState

_KEY = (as_number(checkpoints.c.create_time), checkpoints.c.checkpoint_id)


class CheckpointStore:
    """Knows the checkpoints."""

    def __init__(self, engine: AsyncEngine, changes: Changes) -> None:
        self._engine = engine
        self._changes = changes

    async def get(self, checkpoint_id: str) -> Checkpoint:
        """Return a checkpoint. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await _get(connection, checkpoint_id)

    async def page(self, wanted: CheckpointFilter, page: Page) -> list[Checkpoint]:
        """Return a page of checkpoints, the newest first, and one more where there is a next."""
        statement = SELECT.where(*scope.within(checkpoints.c.project_id))
        if wanted.project_id:
            statement = statement.where(checkpoints.c.project_id == wanted.project_id)
        if wanted.job_id:
            statement = statement.where(checkpoints.c.job_id == wanted.job_id)
        if wanted.states:
            statement = statement.where(in_states(wanted.states))
        async with self._engine.begin() as connection:
            rows = (await connection.execute(page.select(statement, _KEY, descending=True))).all()
        return [checkpoint_of(row) for row in rows]

    async def answer(self, checkpoint_id: str, answer: Answer) -> tuple[Checkpoint, bool]:
        """Give an answer, and wake the job; return the checkpoint as it then is, and whether this answer holds.

        Another's that came first holds, and so does the clock, when the time is over. Raises NotFound,
        FailedPrecondition (CHANGES_NOT_POSSIBLE) of what waits for another answer.
        """
        async with self._engine.begin() as connection:
            # The job's lock comes first, as wherever both are written; of two answers one waits here for the other.
            job = await job_row(connection, (await _get(connection, checkpoint_id)).job_id, locked=True)
            found = await _get(connection, checkpoint_id)
            if found.state is CheckpointState.PENDING and not _takes(found, answer):
                raise FailedPrecondition(
                    "CHANGES_NOT_POSSIBLE",
                    f"changes cannot be asked for at {found.name!r}: approve it, or reject it",
                    checkpoint_id,
                )
            given = update(checkpoints).where(checkpoints.c.checkpoint_id == checkpoint_id, IS_OPEN)
            written = await connection.execute(
                given.values(
                    state=answer.state,
                    comment=answer.comment,
                    decided_by=answer.decider.name,
                    decided_peer=answer.decider.peer,
                    decided_via=answer.decider.via,
                    decide_time=NOW,
                )
            )
            holds = written.rowcount == 1
            if holds:
                publish_on_commit(connection, Questions(answer.state))
                await wake(connection, job)
            decided = await _get(connection, checkpoint_id)
        if holds:
            self._changes.changed(decided.job_id, work=True)
        return decided, holds


def checkpoint_key(checkpoint: Checkpoint) -> tuple[int, str]:
    """Return what a page of checkpoints is ordered by."""
    return microseconds(checkpoint.create_time), checkpoint.checkpoint_id


def _takes(checkpoint: Checkpoint, answer: Answer) -> bool:
    return checkpoint.takes_changes or answer.state is not CheckpointState.CHANGES_REQUESTED


async def _get(connection: AsyncConnection, checkpoint_id: str) -> Checkpoint:
    row = (await connection.execute(SELECT.where(checkpoints.c.checkpoint_id == checkpoint_id))).first()
    if row is None:
        raise NotFound("checkpoint", checkpoint_id)
    return checkpoint_of(row)
