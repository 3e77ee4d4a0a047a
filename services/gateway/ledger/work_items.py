"""The state of work items, as their jobs change it. Everything here works inside the caller's transaction."""

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import FailedPrecondition
from services.gateway.schema.catalog import work_items
from services.gateway.schema.jobs import LIVE, jobs
from services.gateway.values.catalog import WorkItemState


async def set_work_item_state(connection: AsyncConnection, work_item_id: str, state: WorkItemState) -> None:
    """Record the state of a work item, for the job that works on it. Does nothing if there is no such work item."""
    statement = update(work_items).where(work_items.c.work_item_id == work_item_id)
    await connection.execute(statement.values(state=state))


async def occupy(connection: AsyncConnection, work_item_id: str) -> None:
    """Put a work item in progress. Raises FailedPrecondition (WORK_ITEM_BUSY) when a job already works on it."""
    # The update comes first, for its lock: of two admissions at once, the second sees the job of the first.
    await set_work_item_state(connection, work_item_id, WorkItemState.IN_PROGRESS)
    live = select(jobs.c.job_id).where(jobs.c.work_item_id == work_item_id, jobs.c.state.in_(LIVE))
    job_id = (await connection.execute(live)).scalars().first()
    if job_id is not None:
        raise FailedPrecondition(
            "WORK_ITEM_BUSY",
            f"job {job_id} works on work item {work_item_id!r}: wait for its end, or cancel it",
            work_item_id,
            metadata={"job_id": job_id},
        )
