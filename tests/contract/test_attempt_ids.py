"""The ids that a driver records are of its own attempt, on every kind of database."""

import pytest

from services.common.errors import Invalid
from services.lifecycle.ledger import Stage, StageEnd
from services.lifecycle.model.checkpoint import Origin, Question
from services.lifecycle.model.hook_calls import CallState, HookCall
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import ExecutionState, HookEvent, Purpose, StageState
from tests.kit.ledger import Books, claimed


async def test_what_a_driver_records_is_of_its_own_attempt(book: Books) -> None:
    """It could take an id that another job will use, or show an approver the result of another one."""
    for _ in range(2):
        await book.admit()
    cell = await book.cell("cell")
    lease, other = await claimed(cell), await claimed(cell)
    await cell.begin_stage(lease, "base")
    own = lease.execution_id
    before = [await book.store.job(each.job_id) for each in (lease, other)]
    foreign = [
        other.execution_id,
        f"{other.execution_id}-verify",
        f"{own}0-verify",
        own[:-1],
        f"x-{own}",
        "exec-new",
        "",
    ]
    for some_id in foreign:
        note = ExecutionNote(some_id, Purpose.VERIFY, "ws-1", ExecutionState.RUNNING)
        done = StageEnd(Stage("base", StageState.DONE, "{}"), [note])
        for writing in (
            cell.note(lease, note),
            cell.end_stage(lease, done),
            cell.begin_stage(lease, "workspace", [done]),
            cell.record_call(lease, HookCall(some_id, "hook-1", HookEvent.PRE)),
            cell.record_call(lease, HookCall(some_id, "hook-1", HookEvent.PRE, state=CallState.DONE)),
            cell.park(lease, Question("push", Origin.POLICY, "May it?", some_id, 60.0)),
        ):
            with pytest.raises(Invalid, match=f"must be {own}, or begin with {own}-"):
                await writing
    assert [await book.store.job(each.job_id) for each in (lease, other)] == before
    for derived in (own, f"{own}-verify", f"{own}-round-2-verify-try-3"):
        await cell.note(lease, ExecutionNote(derived, Purpose.VERIFY, "ws-1"))
        assert (await book.store.execution(derived)).job_id == lease.job_id
