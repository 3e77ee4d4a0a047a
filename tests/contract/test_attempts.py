"""Retries: each attempt has an execution of its own, attempts are counted, and nobody can write for an earlier one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.agent.allowance import DEFAULT_ALLOWANCE
from services.common.errors import AlreadyExists, FailedPrecondition, NotFound
from services.common.ids import new_id
from services.gateway.catalog.store import REPOSITORIES, WORK_ITEMS, CatalogStore
from services.gateway.cells.store import CellStore
from services.gateway.hooks.store import HookStore
from services.gateway.jobs.retries import Retries
from services.gateway.schema.clock import now
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.catalog import Repository, WorkItem, WorkItemState
from services.gateway.values.cells import Cell
from services.gateway.values.hooks import Hook
from services.gateway.values.jobs import Waiting, WaitsFor
from services.lifecycle.ledger import LeaseLost
from services.lifecycle.model.condition import Condition, Trouble
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import ExecutionState, HookEvent, JobState, Publish, Purpose, StageState
from services.lifecycle.model.value import dump, load
from tests.kit.ledger import Books, age_heartbeat, claimed, expire_leases, finish_given_up, set_job

FAILURE = Failure("AGENT_FAILED", "it broke\0")
FAILED = Outcome(JobState.FAILED, FAILURE)
SOON = Retry(FAILURE, seconds=0.0)


async def test_the_next_attempt_waits_and_is_another_execution(book: Books) -> None:
    await book.admit()
    cell, other = await book.cell("cell"), await book.cell("other")
    first = await claimed(cell)
    await cell.begin_stage(first, "agent")
    await cell.retry(first, Retry(FAILURE, seconds=3600))
    await cell.retry(first, Retry(FAILURE, seconds=3600))  # again, as if the first answer had been lost
    job = await book.store.job(first.job_id)
    assert (job.state, job.reason, job.end_time) == (JobState.PENDING, "", None)
    ended, fresh = job.executions
    assert (ended.state, ended.reason, ended.attempt) == (ExecutionState.FAILED, "AGENT_FAILED", 1)
    assert (fresh.state, fresh.attempt) == (ExecutionState.PENDING, 2)
    assert [stage.state for stage in job.timeline] == [StageState.FAILED]
    assert await other.claim() is None, "its time has not come"
    for late in (cell.begin_stage(first, "more"), cell.note(first, ExecutionNote("e", Purpose.AGENT))):
        with pytest.raises(LeaseLost):
            await late
    assert (await cell.beat([first])).held == frozenset()
    await set_job(book, first.job_id, wake_time=now() - 1)
    second = await claimed(other)
    assert (second.attempt, second.execution_id) == (2, fresh.execution_id)
    assert second.fence > first.fence
    assert (await other.attempt(second)).stages == {}
    with pytest.raises(LeaseLost):
        await cell.retry(first, SOON)


@pytest.mark.parametrize("how", ["before its retry", "before its refusal", "when its cell was lost"])
async def test_a_job_that_was_cancelled_between_two_attempts_is_taken_to_call_its_hooks(book: Books, how: str) -> None:
    told = {"event": HookEvent.ERROR, "command": "true", "on_cancel": True, "create_time": datetime.now(UTC)}
    await HookStore(book.engine).create(Hook(hook_id="hook-1", project_id="default", **told))  # type: ignore[arg-type]
    await book.admit(policy=Policy(max_attempts=1))
    cell, other = await book.cell("cell"), await book.cell("other")
    lease = await claimed(cell)
    await book.store.cancel_job(lease.job_id)
    if how == "when its cell was lost":
        await expire_leases(book)
    else:
        retry = Retry(FAILURE, 3600, "snapshot-1", is_refusal=how == "before its refusal")
        await cell.retry(lease, retry)
        await cell.retry(lease, retry)  # again, as if the first answer had been lost
    taken = await claimed(other)
    assert (taken.job_id, taken.cancel_requested) == (lease.job_id, True)
    attempt = await other.attempt(taken)
    assert [each.hook_id for each in attempt.context.hooks] == ["hook-1"]
    if how == "when its cell was lost":
        assert load(Outcome, attempt.stages["error"].result) == Outcome(JobState.CANCELLED)
    await other.finish(taken, Outcome(JobState.CANCELLED))
    assert (await book.store.job(lease.job_id)).state is JobState.CANCELLED


async def test_a_job_that_is_to_end_is_not_tried_again(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await book.store.cancel_job(lease.job_id)
    await cell.retry(lease, SOON)
    job = await book.store.job(lease.job_id)
    assert (job.state, len(job.executions)) == (JobState.CANCELLED, 1)


async def test_what_waits_to_be_tried_again_ends_at_once_when_it_is_to(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.retry(lease, Retry(FAILURE, seconds=3600))
    assert (await book.store.cancel_job(lease.job_id)).state is JobState.CANCELLED
    assert [run.state for run in (await book.store.job(lease.job_id)).executions] == [
        ExecutionState.FAILED,
        ExecutionState.CANCELLED,
    ]


async def test_failures_and_lost_cells_are_counted_together(book: Books) -> None:
    view = await book.admit(policy=Policy(max_attempts=3))
    cell, other = await book.cell("cell"), await book.cell("other")
    first = await claimed(cell)
    assert (first.attempt, first.last_attempt) == (1, 3)
    await cell.retry(first, SOON)
    assert (await claimed(cell)).attempt == 2
    await expire_leases(book)
    assert (await claimed(other)).attempt == 3
    await expire_leases(book)
    await finish_given_up(cell)
    job = await book.store.job(view.spec.job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "NODE_LOST")
    assert "attempt 3" in job.message
    assert [run.reason for run in job.executions] == ["AGENT_FAILED", "NODE_LOST", "NODE_LOST"]


async def test_a_lost_cell_ends_a_job_whose_policy_says_so(book: Books) -> None:
    view = await book.admit(policy=Policy(retry_on=("AGENT_FAILED",)))
    await claimed(await book.cell("cell"))
    await expire_leases(book)
    await finish_given_up(await book.cell("other"))
    assert (await book.store.job(view.spec.job_id)).reason == "NODE_LOST"


@pytest.mark.parametrize(("reason", "attempts"), [("TIMED_OUT", 1), ("AGENT_FAILED", 2)])
async def test_what_would_not_be_tried_again_is_not_because_its_cell_is_lost_afterwards(
    book: Books, reason: str, attempts: int
) -> None:
    view = await book.admit(policy=Policy(max_attempts=2, retry_on=("AGENT_FAILED", "NODE_LOST")))
    cell, other = await book.cell("cell"), await book.cell("other")
    lease = await claimed(cell)
    note = ExecutionNote(lease.execution_id, Purpose.AGENT, state=ExecutionState.FAILED, reason=reason, message="so")
    await cell.note(lease, note)
    await expire_leases(book)
    await finish_given_up(other) if attempts == 1 else await claimed(other)
    job = await book.store.job(view.spec.job_id)
    assert len(job.executions) == attempts
    if attempts == 1:
        assert (job.state, job.reason, job.message) == (JobState.FAILED, reason, "so")


async def test_an_attempt_begins_from_a_snapshot_on_its_cell_or_without_one_elsewhere(book: Books) -> None:
    await book.admit()
    cell, other = await book.cell("cell"), await book.cell("other", lease_seconds=20)
    await cell.retry(await claimed(cell), replace(SOON, snapshot_id="snap-1"))
    assert await other.claim() is None, "it lies on the first cell, which is there"
    lease = await claimed(cell)
    assert lease.snapshot_id == "snap-1"
    await cell.retry(lease, replace(SOON, snapshot_id="snap-2"))
    await age_heartbeat(book, "cell", 61)
    lease = await claimed(other)
    assert (lease.attempt, lease.snapshot_id) == (3, "")
    (said,) = (await book.store.job(lease.job_id)).timeline
    assert "begins without the snapshot" in said.message
    assert "cell" in said.message


@pytest.mark.parametrize("how", ["away", "paused", "not ready"])
async def test_what_a_person_asks_to_begin_from_a_snapshot_waits_for_its_cell_and_never_begins_without_it(
    book: Books, how: str
) -> None:
    store = CellStore(book.engine, 20)
    await store.register(Cell(cell_id="cell", host="h", version="1", capacity=4, address="", peer_token=""))
    cell, other = await book.cell("cell", lease_seconds=20), await book.cell("other", lease_seconds=20)
    await book.admit()
    lease = await claimed(cell)
    await cell.note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT, output=Output(snapshot_id="snap-1")))
    await cell.finish(lease, Outcome(JobState.FAILED, Failure("AGENT_FAILED", "")))
    match how:
        case "away":
            await age_heartbeat(book, "cell", 600)
        case "paused":
            await store.set_paused("cell", paused=True)
        case _:
            await store.set_condition("cell", Condition(None, (Trouble("DISK_FULL", "no room"),)))
    job = await Retries(book.engine, book.notifier).retry(lease.job_id, from_snapshot=True, key=None)

    assert await other.claim() is None
    assert await cell.claim() is None or how == "away"
    if how != "away":
        waiting = (await book.store.job(lease.job_id)).waiting_for
        assert waiting is not None
        assert (waiting.kind, waiting.cell_id) == (WaitsFor.CELL, "cell")
        assert how in waiting.message
    match how:
        case "away":
            return
        case "paused":
            await store.set_paused("cell", paused=False)
        case _:
            await store.set_condition("cell", Condition(DEFAULT_ALLOWANCE))
    assert (await book.store.job(lease.job_id)).waiting_for is None
    again = await claimed(cell)
    assert (again.job_id, again.snapshot_id) == (job.spec.job_id, "snap-1")


async def test_a_cell_that_is_away_for_an_hour_is_waited_for_no_longer(book: Books) -> None:
    cell, other = await book.cell("cell", lease_seconds=20), await book.cell("other", lease_seconds=20)
    await CellStore(book.engine, 20).register_if_absent(
        Cell(cell_id="cell", host="h", version="1", capacity=4, address="", peer_token="")
    )
    await book.admit()
    lease = await claimed(cell)
    await cell.note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT, output=Output(snapshot_id="snap-1")))
    await cell.finish(lease, Outcome(JobState.FAILED, Failure("AGENT_FAILED", "")))
    await Retries(book.engine, book.notifier).retry(lease.job_id, from_snapshot=True, key=None)
    await age_heartbeat(book, "cell", 3500)
    assert await other.claim() is None
    waiting = (await book.store.job(lease.job_id)).waiting_for
    assert waiting is not None
    assert "is away" in waiting.message
    await age_heartbeat(book, "cell", 3601)
    await finish_given_up(other)
    job = await book.store.job(lease.job_id)
    assert (job.state, job.reason, job.waiting_for) == (JobState.FAILED, "NODE_LOST", None)
    assert "cell cell, which alone has what the job was to start from" in job.message


async def test_what_a_job_waits_for_is_told(book: Books) -> None:
    assert (await book.store.job((await book.admit()).spec.job_id)).waiting_for == Waiting(
        WaitsFor.NO_PLACE, "no cell has a place: there is none"
    )
    store = CellStore(book.engine, 20)
    full = Condition(None, (Trouble("DISK_FULL", "no room"),))
    await store.register(Cell(cell_id="one", host="h", version="1", capacity=4, address="", peer_token=""), full)
    waiting = (await book.store.job((await book.admit()).spec.job_id)).waiting_for
    assert waiting is not None
    assert waiting.message == "no cell has a place: one is not ready (DISK_FULL: no room)"
    await store.set_condition("one", Condition(None))
    assert (await book.store.job((await book.admit()).spec.job_id)).waiting_for is None
    later = await book.admit(not_before=datetime.now(UTC) + timedelta(hours=1))
    waiting = (await book.store.job(later.spec.job_id)).waiting_for
    assert waiting is not None
    assert waiting.kind is WaitsFor.NOT_BEFORE
    cell = await book.cell("one")
    lease = await claimed(cell)
    await cell.retry(lease, replace(SOON, seconds=60))
    waiting = (await book.store.job(lease.job_id)).waiting_for
    assert waiting is not None
    assert waiting.kind is WaitsFor.RETRY


async def test_what_was_ordered_to_begin_from_a_lost_snapshot_fails(book: Books) -> None:
    view = await book.admit()
    other = await book.cell("other", lease_seconds=20)
    await book.cell("cell")
    from_it = replace(view.spec, snapshot_id="snap-1")
    await set_job(book, view.spec.job_id, bound_cell_id="cell", definition=dump(from_it))
    await age_heartbeat(book, "cell", 600)
    assert await other.claim() is None, "it may yet come back"
    await age_heartbeat(book, "cell", 3601)
    await finish_given_up(other)
    job = await book.store.job(view.spec.job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "NODE_LOST")


@pytest.mark.parametrize("outcome", [FAILED, Outcome(JobState.CANCELLED)], ids=["failed", "cancelled"])
async def test_a_person_has_a_job_tried_again(book: Books, outcome: Outcome) -> None:
    retries = Retries(book.engine, book.notifier)
    await book.admit(policy=Policy(max_attempts=2))
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.retry(lease, SOON)
    await cell.finish(await claimed(cell), outcome)
    request = IdempotencyKey("again", "RetryJob", b"digest")
    again = await retries.retry(lease.job_id, from_snapshot=False, key=request)
    assert (again.state, again.reason, again.message, again.end_time) == (JobState.PENDING, "", "", None)
    assert (await retries.retry(lease.job_id, from_snapshot=False, key=request)).state is JobState.PENDING
    with pytest.raises(AlreadyExists):
        await retries.retry(lease.job_id, from_snapshot=True, key=replace(request, digest=b"other"))
    third = await claimed(cell)
    assert (third.attempt, third.last_attempt, third.cancel_requested) == (3, 4, False)
    with pytest.raises(FailedPrecondition) as refused:
        await retries.retry(lease.job_id, from_snapshot=False, key=None)
    assert refused.value.metadata["state"] == "RUNNING"
    await cell.finish(third, Outcome(JobState.SUCCEEDED))
    with pytest.raises(FailedPrecondition):
        await retries.retry(lease.job_id, from_snapshot=False, key=None)
    with pytest.raises(NotFound):
        await retries.retry("job-nowhere", from_snapshot=False, key=None)


async def test_a_person_has_a_job_go_on_from_what_was_left(book: Books) -> None:
    retries = Retries(book.engine, book.notifier)
    await book.admit()
    cell, other = await book.cell("cell"), await book.cell("other")
    lease = await claimed(cell)
    await cell.finish(lease, FAILED)
    with pytest.raises(FailedPrecondition) as refused:
        await retries.retry(lease.job_id, from_snapshot=True, key=None)
    assert refused.value.reason == "NO_SNAPSHOT"
    await retries.retry(lease.job_id, from_snapshot=False, key=None)
    lease = await claimed(cell)
    note = ExecutionNote(lease.execution_id, Purpose.AGENT, output=Output(snapshot_id="snap-1"))
    await cell.note(lease, note)
    await cell.finish(lease, FAILED)
    await retries.retry(lease.job_id, from_snapshot=True, key=None)
    assert await other.claim() is None
    lease = await claimed(cell)
    assert lease.snapshot_id == "snap-1"
    await cell.finish(lease, FAILED)  # its agent never began: what it would have begun from is still what was left
    await retries.retry(lease.job_id, from_snapshot=True, key=None)
    assert (await claimed(cell)).snapshot_id == "snap-1"


async def test_what_the_last_round_left_is_what_was_left(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT))
    second = ExecutionNote(f"{lease.execution_id}-round-2", Purpose.AGENT, output=Output(snapshot_id="snap-1"))
    await cell.note(lease, second)
    await cell.finish(lease, FAILED)
    await Retries(book.engine, book.notifier).retry(lease.job_id, from_snapshot=True, key=None)
    assert (await claimed(cell)).snapshot_id == "snap-1"


@pytest.mark.parametrize(("last", "pushed"), [("two", "two"), ("", "one"), ("base", None)])
async def test_the_last_result_is_pushed_unless_a_round_took_it_back(
    book: Books, last: str, pushed: str | None
) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    for number, commit_id in enumerate(("one", last)):
        output = Output(base_commit_id="base", commit_id=commit_id)
        await cell.note(lease, ExecutionNote(f"{lease.execution_id}-round-{number}", Purpose.AGENT, output=output))
    await cell.finish(lease, FAILED)
    retries = Retries(book.engine, book.notifier)
    if pushed is None:
        with pytest.raises(FailedPrecondition) as refused:
            await retries.push(lease.job_id, key=None)
        assert refused.value.reason == "NO_RESULT"
    else:
        await retries.push(lease.job_id, key=None)
        assert (await claimed(cell)).spec.kept.commit_id == pushed


async def succeeded(book: Books, output: Output, **fields: Any) -> str:
    """Have a job of a repository succeed with this output; return its id."""
    repository = Repository(repository_id=new_id("repo"), project_id="default", url="/r", create_time=datetime.now(UTC))
    await CatalogStore(book.engine).create(REPOSITORIES, repository)
    await book.admit(repository_id=repository.repository_id, branch=b"work", **fields)
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT, output=output))
    await cell.finish(lease, Outcome(JobState.SUCCEEDED))
    return lease.job_id


TAKEN = Output(base_commit_id="base", commit_id="made", branch=b"work")


@pytest.mark.parametrize(
    ("output", "branch", "reason"),
    [
        (TAKEN, b"", ""),
        (TAKEN, b"other", ""),
        (replace(TAKEN, pushed=True), b"other", ""),
        (replace(TAKEN, pushed=True), b"", "JOB_STATE"),
        (replace(TAKEN, pushed=True), b"work", "JOB_STATE"),
        (replace(TAKEN, commit_id="base"), b"", "NO_RESULT"),
    ],
)
async def test_what_succeeded_is_pushed_later(book: Books, output: Output, branch: bytes, reason: str) -> None:
    policy = Policy(publish=Publish.NONE, checkpoints=Checkpoints(before=("push",)))
    job_id = await succeeded(book, output, policy=policy)
    retries = Retries(book.engine, book.notifier)
    with pytest.raises(FailedPrecondition, match="SUCCEEDED"):
        await retries.retry(job_id, from_snapshot=False, key=None)
    if reason:
        with pytest.raises(FailedPrecondition) as refused:
            await retries.push(job_id, branch=branch, key=None)
        assert refused.value.reason == reason
        assert (await book.store.job(job_id)).state is JobState.SUCCEEDED
        return
    await retries.push(job_id, branch=branch, key=None)
    spec = (await claimed(await book.cell("cell"))).spec
    assert spec.kept is not None
    assert (spec.kept.commit_id, spec.branch, spec.is_published) == ("made", branch or b"work", True)
    assert spec.policy.checkpoints.before == ("push",), "a push is a push: people are asked"


async def test_without_a_repository_there_is_nowhere_to_push(book: Books) -> None:
    await book.admit()
    cell, retries = await book.cell("cell"), Retries(book.engine, book.notifier)
    lease = await claimed(cell)
    await cell.note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT, output=TAKEN))
    await cell.finish(lease, Outcome(JobState.SUCCEEDED))
    with pytest.raises(FailedPrecondition) as refused:
        await retries.push(lease.job_id, key=None)
    assert refused.value.reason == "NO_RESULT"


async def test_a_work_item_is_in_progress_again(book: Books) -> None:
    catalog, retries = CatalogStore(book.engine), Retries(book.engine, book.notifier)
    created = (await book.admit()).create_time
    item = WorkItem(work_item_id="item", project_id="default", title="Mend it", create_time=created)
    await catalog.create(WORK_ITEMS, item)
    cell = await book.cell("cell")
    await cell.finish(await claimed(cell), FAILED)
    first = (await book.admit(work_item_id="item")).spec.job_id
    await cell.finish(await claimed(cell), FAILED)
    second = (await book.admit(work_item_id="item")).spec.job_id
    with pytest.raises(FailedPrecondition) as refused:
        await retries.retry(first, from_snapshot=False, key=None)
    assert (refused.value.reason, refused.value.metadata["job_id"]) == ("WORK_ITEM_BUSY", second)
    await cell.finish(await claimed(cell), FAILED)
    assert (await catalog.get(WORK_ITEMS, "item")).state is WorkItemState.TODO
    await retries.retry(first, from_snapshot=False, key=None)
    assert (await catalog.get(WORK_ITEMS, "item")).state is WorkItemState.IN_PROGRESS


async def test_a_job_that_is_tried_again_stands_in_the_queue_as_if_it_came_now(book: Books) -> None:
    again = (await book.admit("again")).spec.job_id
    await book.store.cancel_job(again)
    await book.admit("waits")
    await Retries(book.engine, book.notifier).retry(again, from_snapshot=False, key=None)
    cell = await book.cell("cell")
    assert [(await claimed(cell)).spec.prompt for _ in range(2)] == ["waits", "again"]
