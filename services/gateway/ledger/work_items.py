"""The state of work items, as their jobs change it. Everything here works inside the caller's transaction."""

from typing import Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import FailedPrecondition
from services.gateway.schema.catalog import projects, work_items
from services.gateway.schema.jobs import LIVE, jobs
from services.gateway.values.catalog import WorkItemState

_LOCKED: Final = (
    select(work_items.c.state, projects.c.todo_only)
    .join(projects, projects.c.project_id == work_items.c.project_id)
    .where(work_items.c.work_item_id == bindparam("this_item"))
    .with_for_update(of=work_items)
)


async def set_work_item_state(connection: AsyncConnection, work_item_id: str, state: WorkItemState) -> None:
    """Record the state of a work item, for the job that works on it. Does nothing if there is no such work item."""
    statement = update(work_items).where(work_items.c.work_item_id == work_item_id)
    await connection.execute(statement.values(state=state))


async def occupy(connection: AsyncConnection, work_item_id: str, *, takes_any: bool = False) -> None:
    """Put a work item in progress. Raises FailedPrecondition (WORK_ITEM_BUSY) when a job already works on it.

    Raises FailedPrecondition (WORK_ITEM_STATE) when its project's jobs take up only what is TODO, unless `takes_any`.
    """
    # The lock comes first: of two admissions at once, the second sees the job of the first.
    item = (await connection.execute(_LOCKED, {"this_item": work_item_id})).first()
    live = select(jobs.c.job_id).where(jobs.c.work_item_id == work_item_id, jobs.c.state.in_(LIVE))
    job_id = (await connection.execute(live)).scalars().first()
    if job_id is not None:
        raise FailedPrecondition(
            "WORK_ITEM_BUSY",
            f"job {job_id} works on work item {work_item_id!r}: wait for its end, or cancel it",
            work_item_id,
            metadata={"job_id": job_id},
        )
    if item is not None and item.todo_only and not takes_any and item.state is not WorkItemState.TODO:
        raise FailedPrecondition(
            "WORK_ITEM_STATE",
            f"work item {work_item_id!r} is {item.state}, and its project takes up only what is TODO: put it back",
            work_item_id,
            state=item.state,
            allowed_states=[WorkItemState.TODO],
        )
    await set_work_item_state(connection, work_item_id, WorkItemState.IN_PROGRESS)
