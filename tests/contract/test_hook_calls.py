"""The history of hook calls on every kind of database: one record for each call, and no call without its end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from services.common.db.paging import Page
from services.gateway.hooks.calls import CallStore
from services.gateway.hooks.store import HookStore
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.values.hooks import CallFilter, CallView, Hook
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.hook_calls import CallState, HookCall
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import HookEvent, JobState
from tests.kit.ledger import Books, claimed, set_job

CALL = HookCall("pre-hook-1", "hook-1", HookEvent.PRE)  # its id as `of` completes it
DONE = replace(CALL, state=CallState.DONE, tries=2, status="answered 200", answer="ok\0", labels={"team": "a"})

NOW = datetime.now(UTC)


async def listed(book: Books, **wanted: object) -> list[CallView]:
    views, token = await CallStore(book.engine).page(CallFilter(**wanted), Page())  # type: ignore[arg-type]
    assert token == ""
    return views


def of(lease: Lease, call: HookCall) -> HookCall:
    """Return the call as one of the lease's attempt."""
    return replace(call, call_id=f"{lease.execution_id}-{call.call_id}")


def named(view: CallView) -> str:
    """Return the id of a call without its attempt's: `call-1`."""
    return view.call_id.split("-", 2)[2]


async def expire(book: Books) -> None:
    async with book.engine.begin() as connection:
        await connection.execute(update(jobs).values(lease_until=now() - 1))


async def test_a_call_is_one_record_however_often_it_is_recorded(book: Books) -> None:
    await book.admit(labels={"mine": "1"})
    cell = await book.cell("cell")
    lease = await claimed(cell)
    for call in (CALL, CALL):  # again, as if the first answer had been lost
        await cell.record_call(lease, of(lease, call))
        (view,) = await listed(book)
        assert (view.state, view.begun, view.tries, view.end_time) == (CallState.RUNNING, 1, 0, None)
    for call in (DONE, replace(DONE, status="another")):
        await cell.record_call(lease, of(lease, call))
        (view,) = await listed(book)
        assert (view.state, view.begun, view.tries, view.status) == (CallState.DONE, 1, 2, "answered 200")
    assert (view.job_id, view.hook_id, view.project_id, view.attempt) == (lease.job_id, "hook-1", "default", 1)
    assert view.answer == "ok�"
    assert view.end_time is not None
    assert view.end_time >= view.start_time
    job = await book.store.job(lease.job_id)
    assert dict(job.spec.labels) == {"mine": "1", "team": "a"}


async def test_a_call_that_another_lease_begins_again_says_so(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    old = await claimed(cell)
    await cell.record_call(old, of(old, CALL))
    new = await claimed(await book.cell("cell"))
    await cell.record_call(new, of(new, CALL))
    with pytest.raises(LeaseLost):
        await cell.record_call(old, of(old, DONE))
    (view,) = await listed(book)
    assert (view.state, view.begun) == (CallState.RUNNING, 2)
    await cell.record_call(new, of(new, DONE))
    newest = await claimed(await book.cell("cell"))  # the driver was killed before the stage was recorded
    await cell.record_call(newest, of(newest, CALL))
    (view,) = await listed(book)
    assert (view.state, view.begun, view.status, view.end_time) == (CallState.RUNNING, 3, "", None)


async def test_a_call_that_is_under_way_when_its_attempt_ends_was_interrupted(book: Books) -> None:
    for number in (1, 2):
        await book.admit()
        cell = await book.cell(f"cell-{number}")
        lease = await claimed(cell)
        await cell.record_call(lease, of(lease, replace(CALL, call_id=f"call-{number}")))
    await cell.record_call(lease, of(lease, replace(DONE, call_id="call-2")))
    await cell.record_call(lease, of(lease, replace(CALL, call_id="call-3")))
    await cell.finish(lease, Outcome(JobState.CANCELLED))
    await expire(book)
    await claimed(await book.cell("other"))  # a new attempt of the first job
    states = {named(view): view.state for view in await listed(book)}
    assert states == {
        "call-1": CallState.INTERRUPTED,
        "call-2": CallState.DONE,
        "call-3": CallState.INTERRUPTED,
    }
    assert all(view.end_time for view in await listed(book))


async def test_calls_are_found_by_what_they_are(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    for number in range(5):
        call = replace(CALL, call_id=f"call-{number}", hook_id=f"hook-{number % 2}")
        await cell.record_call(lease, of(lease, call))
        if number != 4:
            await cell.record_call(lease, of(lease, replace(call, state=CallState.FAILED, status="answered 503")))
    store, found, page = CallStore(book.engine), [], Page.parse(2, "")
    while True:
        views, token = await store.page(CallFilter(), page)
        found += [named(view) for view in views]
        if not token:
            break
        page = Page.parse(2, token)
    assert found == [f"call-{number}" for number in (4, 3, 2, 1, 0)]

    async def ids(**wanted: object) -> set[str]:
        return {named(view) for view in await listed(book, **wanted)}

    assert await ids(hook_id="hook-1") == {"call-1", "call-3"}
    assert await ids(states=frozenset({CallState.RUNNING})) == {"call-4"}
    assert await ids(job_id=lease.job_id, project_id="default") == set(found)
    assert await ids(job_id="job-other") == await ids(project_id="other") == set()
    assert await store.remove_expired() == 0
    assert await store.remove_expired(timedelta(0)) == 5
    assert await listed(book) == []


async def test_a_cancelled_job_that_nobody_has_is_for_any_cell_while_a_hook_is_to_be_called(book: Books) -> None:
    hooks = HookStore(book.engine)
    any_hook = Hook(hook_id="any", project_id="default", event=HookEvent.ERROR, command="true", create_time=NOW)
    for name, on_cancel, kinds in (("on-cancel", True, ()), ("other", False, ()), ("misfit", True, ("x",))):
        await hooks.create(replace(any_hook, hook_id=name, on_cancel=on_cancel, kinds=kinds))
    taken, freed = [(await book.admit()).spec.job_id for _ in range(2)]
    away = {"bound_cell_id": "away", "refused_by": "cell", "wake_time": 2**60}
    await set_job(book, taken, **away)
    for _ in range(2):
        for job_id in (taken, freed):
            waiting = await book.store.cancel_job(job_id)
            assert (waiting.state, waiting.cancel_requested) == (JobState.PENDING, True)
    lease = await claimed(await book.cell("cell"))
    assert (lease.job_id, lease.cancel_requested, lease.attempt) == (taken, True, 1)
    await hooks.delete("on-cancel", NOW)
    assert (await book.store.cancel_job(freed)).state is JobState.CANCELLED
    assert (await book.store.cancel_job(taken)).state is JobState.RUNNING
