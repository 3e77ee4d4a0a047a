"""Calls of hooks, recorded with their job. Everything here works inside the caller's transaction."""

from typing import Final

from sqlalchemy import and_, bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.gateway.ledger.attempt_ids import check_of_attempt
from services.gateway.schema.clock import NOW
from services.gateway.schema.hooks import hook_calls
from services.gateway.schema.sql import insert_if_absent, storable_text
from services.gateway.values.facts import HookCalled
from services.lifecycle.ledger import Lease
from services.lifecycle.model.hook_calls import CallState, HookCall

RUNNING_CALLS: Final = and_(hook_calls.c.job_id == bindparam("this_job"), hook_calls.c.state == CallState.RUNNING)
"""The calls of the job `this_job` that have not ended."""


async def write_call(connection: AsyncConnection, lease: Lease, call: HookCall) -> None:
    """Record a call of the lease's attempt as it is now. Raises Invalid for one of another."""
    check_of_attempt(lease, call.call_id)
    this = update(hook_calls).where(hook_calls.c.call_id == call.call_id, hook_calls.c.job_id == lease.job_id)
    if call.state is not CallState.RUNNING:
        known = {
            "state": call.state,
            "tries": call.tries,
            "status": storable_text(call.status),
            "answer": storable_text(call.answer),
        }
        ended = this.where(hook_calls.c.state == CallState.RUNNING).values(**known, end_time=NOW)
        if (await connection.execute(ended)).rowcount:
            publish_on_commit(connection, HookCalled(call.event, call.state))
        return
    row = {
        "call_id": call.call_id,
        "hook_id": call.hook_id,
        "job_id": lease.job_id,
        "project_id": lease.spec.project_id,
        "attempt": lease.attempt,
        "event": call.event,
        "stage": call.stage,
        "begun": 1,
        "start_time": NOW,
    }
    fresh = {"state": CallState.RUNNING, "fence": lease.fence, "tries": 0, "status": "", "answer": ""}
    if not await insert_if_absent(connection, hook_calls, row | fresh):
        again = this.where(hook_calls.c.fence < lease.fence)
        await connection.execute(again.values(**fresh, begun=hook_calls.c.begun + 1, end_time=None))


async def interrupt_calls(connection: AsyncConnection, job_id: str) -> None:
    """Mark those of a job's calls that have not ended as INTERRUPTED: nobody will know how they ended."""
    interrupted = update(hook_calls).where(RUNNING_CALLS).values(state=CallState.INTERRUPTED, end_time=NOW)
    await connection.execute(interrupted, {"this_job": job_id})
