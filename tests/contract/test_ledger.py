"""What a driver can rely on with every kind of database: each job has one owner, and nobody else writes."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.agent.settings import AgentSettings, AnthropicEngine
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition
from services.gateway.catalog.store import REPOSITORIES, TEMPLATES, WORK_ITEMS, CatalogStore
from services.gateway.ledger.claim_queries import ClaimFilter
from services.gateway.ledger.fleet import AWAY_LEASES
from services.gateway.schema.clock import now
from services.gateway.values.catalog import Repository, Template, WorkItem, WorkItemState
from services.gateway.values.jobs import ExecutionFilter
from services.lifecycle.ledger import Lease, LeaseLost, Stage, StageEnd
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState
from tests.kit.ledger import (
    Books,
    age_heartbeat,
    claimed,
    clear,
    expire_leases,
    finish_given_up,
    park,
    question,
    set_job,
)

SUCCEEDED = Outcome(JobState.SUCCEEDED)
BROKEN = Failure("AGENT_FAILED", "it broke\0")
FAILED = Outcome(JobState.FAILED, BROKEN)


async def test_each_of_many_jobs_goes_to_one_of_many_claimers(book: Books) -> None:
    admitted = {(await book.admit()).spec.job_id for _ in range(12)}
    owners = [await book.cell(f"cell-{number}") for number in range(4)]

    async def claim_all(number: int) -> list[Lease]:
        leases = []
        while (lease := await owners[number % 4].claim()) is not None:
            leases.append(lease)
        return leases

    found = [lease for leases in await asyncio.gather(*map(claim_all, range(8))) for lease in leases]
    assert sorted(lease.job_id for lease in found) == sorted(admitted), "each once"
    assert {lease.fence for lease in found} == {1}


async def test_priority_then_age(book: Books) -> None:
    wanted = [(0, "first"), (5, "urgent"), (-3, "idle"), (5, "urgent too"), (0, "second")]
    for priority, prompt in wanted:
        await book.admit(prompt, priority=priority)
    cell = await book.cell("cell")
    taken = [(await claimed(cell)).spec.prompt for _ in wanted]
    assert taken == ["urgent", "urgent too", "first", "second", "idle"]
    assert await cell.claim() is None


async def test_a_claim_tells_all_there_is_to_know(book: Books) -> None:
    view = await book.admit("Mend it.", labels={"team": "é"})
    lease = await claimed(await book.cell("cell"))
    assert lease.spec == view.spec
    assert (lease.attempt, lease.cancel_requested) == (1, False)
    assert [lease.execution_id] == [execution.execution_id for execution in view.executions]
    job = await book.store.job(lease.job_id)
    assert (job.state, job.cell_id, job.executions[0].cell_id) == (JobState.RUNNING, "cell", "cell")
    assert job.start_time
    assert job.start_time >= job.create_time
    assert job.revision > view.revision


async def test_whoever_lost_the_lease_writes_nothing(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    old = await claimed(cell)
    await cell.begin_stage(old, "base")
    await expire_leases(book)
    new = await claimed(cell)
    assert new.fence > old.fence
    before = await book.store.job(old.job_id)
    note = ExecutionNote(old.execution_id, Purpose.AGENT, state=ExecutionState.RUNNING)
    for late in (
        cell.begin_stage(old, "workspace"),
        cell.begin_stage(old, "workspace", [StageEnd(Stage("base", StageState.DONE), [note])]),
        cell.end_stage(old, StageEnd(Stage("base", StageState.DONE), [note])),
        cell.note(old, note),
        cell.finish(old, SUCCEEDED),
        cell.attempt(old),
        cell.execution(old),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert await book.store.job(old.job_id) == before
    assert (await cell.beat([old, new])).held == {new.job_id}
    assert (await cell.beat([old])).held == frozenset()


async def test_a_lease_lasts_as_long_as_it_is_prolonged(book: Books) -> None:
    await book.admit()
    owner, other = await book.cell("owner"), await book.cell("other")
    lease = await claimed(owner)
    for _ in range(3):
        await expire_leases(book)  # a late heartbeat keeps the lease, unless somebody else has claimed the job
        assert (await owner.beat([lease])).held == {lease.job_id}
        assert await other.claim() is None
    await expire_leases(book)
    assert (await claimed(other)).job_id == lease.job_id
    assert (await owner.beat([lease])).held == frozenset()


async def test_another_cell_begins_a_new_attempt(book: Books) -> None:
    admitted = await book.admit()
    first = await book.cell("first")
    lost = await claimed(first)
    await first.begin_stage(lost, "base")
    await expire_leases(book)
    second = await book.cell("second")
    lease = await claimed(second)
    assert (lease.attempt, lease.fence) == (2, lost.fence + 1)
    assert lease.execution_id != lost.execution_id
    assert (await second.attempt(lease)).stages == {}, "what was done is on the other machine"
    ended, fresh = (await book.store.job(admitted.spec.job_id)).executions
    assert (ended.state, ended.reason) == (ExecutionState.FAILED, "NODE_LOST")
    assert (fresh.state, fresh.attempt) == (ExecutionState.PENDING, 2)


async def test_a_job_that_no_cell_survives_is_given_up(book: Books) -> None:
    admitted = await book.admit()
    for number in range(admitted.spec.policy.max_attempts):
        assert (await claimed(await book.cell(f"cell-{number}"))).attempt == number + 1
        await expire_leases(book)
    lease = await claimed(await book.cell("last"))  # this cell is lost too
    assert (lease.attempt, lease.is_moved) == (admitted.spec.policy.max_attempts, True)
    await expire_leases(book)
    await finish_given_up(await book.cell("very last"))
    job = await book.store.job(admitted.spec.job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "NODE_LOST")
    assert {execution.state for execution in job.executions} == {ExecutionState.FAILED}


async def test_a_restarted_cell_has_its_own_jobs_back_at_once(book: Books) -> None:
    await book.admit("its own")
    cell = await book.cell("cell")
    before = await claimed(cell)
    await cell.begin_stage(before, "start")
    await book.admit("more urgent", priority=9)
    again, other = await book.cell("cell"), await book.cell("other")
    assert (await claimed(other)).spec.prompt == "more urgent"
    assert await other.claim() is None, "nobody else may have it before the lease has run out"
    lease = await claimed(again)
    assert (lease.job_id, lease.attempt, lease.execution_id) == (before.job_id, 1, before.execution_id)
    assert lease.fence == before.fence + 1
    assert list((await again.attempt(lease)).stages) == ["start"]
    assert (await cell.beat([before])).held == frozenset()


async def test_own_jobs_come_before_more_urgent_ones(book: Books) -> None:
    await book.admit("its own")
    await claimed(await book.cell("cell"))
    await book.admit("more urgent", priority=9)
    assert (await claimed(await book.cell("cell"))).spec.prompt == "its own"


async def test_a_parked_job_comes_back_to_its_own_cell_when_it_is_awake(book: Books) -> None:
    await book.admit()
    cell, other = await book.cell("cell"), await book.cell("other")
    parked = await claimed(cell)
    await cell.begin_stage(parked, "start")
    await park(book, parked, 3600)
    assert await cell.claim() is None, "nobody has answered"
    assert (await cell.beat([parked])).held == frozenset()
    await park(book, parked, -1)
    assert await other.claim() is None, "what was done is on the first cell, which is there"
    lease = await claimed(cell)
    assert (lease.attempt, lease.execution_id, lease.fence) == (1, parked.execution_id, parked.fence + 1)
    assert list((await cell.attempt(lease)).stages) == ["start"]


async def test_a_parked_job_of_a_cell_that_is_away_begins_anew_when_it_is_awake(book: Books) -> None:
    await book.admit()
    cell, other = await book.cell("cell"), await book.cell("other", lease_seconds=20)
    parked = await claimed(cell)
    await park(book, parked, 3600)
    await age_heartbeat(book, "cell", AWAY_LEASES * 20 + 1)
    assert await other.claim() is None, "nobody has answered: the cell may yet come back"
    await park(book, parked, -1)
    await age_heartbeat(book, "cell", AWAY_LEASES * 20 - 10)
    assert await other.claim() is None
    await age_heartbeat(book, "cell", AWAY_LEASES * 20 + 1)
    lease = await claimed(other)
    assert (lease.attempt, lease.fence) == (2, parked.fence + 1)
    first, second = (await book.store.job(lease.job_id)).executions
    assert (first.reason, first.cell_id) == ("NODE_LOST", "cell")
    assert (second.execution_id, second.cell_id) == (lease.execution_id, "other")


async def test_a_wish_to_end_wakes_a_parked_job(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    await park(book, parked := await claimed(cell), 3600)
    asked = await book.store.cancel_job(parked.job_id)
    assert (asked.state, asked.cancel_requested) == (JobState.AWAITING_APPROVAL, True), "its cell has to clean up"
    lease = await claimed(cell)
    assert (lease.execution_id, lease.cancel_requested) == (parked.execution_id, True)


async def test_a_restart_leaves_parked_jobs_parked(book: Books) -> None:
    await book.admit()
    await park(book, parked := await claimed(await book.cell("cell")), 3600)
    assert await (await book.cell("cell")).claim() is None
    assert (await book.store.job(parked.job_id)).state is JobState.AWAITING_APPROVAL


async def test_a_job_is_taken_when_its_time_has_come_by_the_cell_that_it_is_bound_to(book: Books) -> None:
    cell, other = await book.cell("cell"), await book.cell("other")
    await book.admit()
    lease = await claimed(cell)
    await set_job(book, lease.job_id, state=JobState.PENDING, wake_time=now() + 3_600_000_000, bound_cell_id="other")
    assert await other.claim() is None
    await set_job(book, lease.job_id, wake_time=now() - 1)
    assert await cell.claim() is None
    assert (await claimed(other)).attempt == 1


async def test_stages_are_replayed_as_they_were_written(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.begin_stage(lease, "base")
    await cell.begin_stage(lease, "base")  # again, as if the first answer had been lost
    done = Stage("base", StageState.DONE, '{"commit_id": "c0ffee"}')
    output = Output(base_commit_id="c0ffee", log_tail=b"\xff\x00")
    note = ExecutionNote(lease.execution_id, Purpose.AGENT, "ws-1", ExecutionState.RUNNING, output=output)
    await cell.end_stage(lease, StageEnd(done, [note]))
    another = StageEnd(Stage("base", StageState.FAILED, "{}"), [replace(note, workspace_id="")])
    await cell.end_stage(lease, another)
    await cell.begin_stage(lease, "base")
    await cell.begin_stage(lease, "workspace", [another])
    expected = {"base": done, "workspace": Stage("workspace", StageState.RUNNING)}
    assert (await cell.attempt(lease)).stages == expected, "the first word counts"
    assert (await cell.attempt(lease)).execution == await cell.execution(lease) == note
    first, second = (await book.store.job(lease.job_id)).timeline
    assert (first.name, second.name) == ("base", "workspace")
    assert first.end_time
    assert first.start_time <= first.end_time <= second.start_time
    assert second.end_time is None


async def test_other_executions_are_kept_too(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    note = ExecutionNote(f"{lease.execution_id}-verify", Purpose.VERIFY, "ws-check", ExecutionState.RUNNING)
    await cell.note(lease, note)
    await cell.note(lease, replace(note, state=ExecutionState.FAILED, reason="TIMED_OUT"))
    kept = await book.store.execution(note.execution_id)
    assert (kept.job_id, kept.purpose, kept.state) == (lease.job_id, Purpose.VERIFY, ExecutionState.FAILED)
    assert len((await book.store.job(lease.job_id)).executions) == 1, "only agents are listed"
    agents, checks = [
        await book.store.executions(ExecutionFilter(purposes=frozenset({each})), Page(size=10))
        for each in (Purpose.AGENT, Purpose.VERIFY)
    ]
    assert [each.execution_id for each in agents] == [lease.execution_id]
    assert [each.execution_id for each in checks] == [note.execution_id]


async def test_when_an_execution_began_does_not_change(book: Books) -> None:
    """Neither when its job is taken over, nor by what a node or a driver of an earlier version says of it later."""
    await book.admit()
    lease = await claimed(await book.cell("cell"))
    began = datetime(2026, 11, 29, tzinfo=UTC)
    note = ExecutionNote(lease.execution_id, Purpose.AGENT, state=ExecutionState.RUNNING, start_time=began)
    cell = await book.cell("cell")
    await cell.note(lease, replace(note, start_time=None))
    await cell.note(lease, note)
    await expire_leases(book)
    again = await claimed(cell)
    await cell.note(again, replace(note, start_time=began + timedelta(seconds=7)))
    await cell.note(again, replace(note, state=ExecutionState.SUCCEEDED, start_time=None))
    assert (await book.store.execution(lease.execution_id)).start_time == began


async def test_an_execution_tells_of_its_job(book: Books) -> None:
    catalog, fields = CatalogStore(book.engine), {"project_id": "default", "create_time": datetime.now(UTC)}
    await catalog.create(REPOSITORIES, Repository(repository_id="r", url="/srv/r", **fields))
    await catalog.create(TEMPLATES, Template(template_id="mender", **fields))
    view = await book.admit(
        "NUL \0 and \\u0000", labels={"branch": "x"}, repository_id="r", branch="café".encode(), template_id="mender"
    )
    (found,) = await book.store.executions(ExecutionFilter(job_id=view.spec.job_id), Page(size=10))
    assert found == replace(await book.store.execution(found.execution_id), output=found.output)
    assert (found.branch, found.template_id) == ("café".encode(), "mender")
    lease = await claimed(await book.cell("cell"))
    await (await book.cell("cell")).finish(lease, FAILED)
    ended = await book.store.execution(found.execution_id)
    assert (ended.job_state, ended.job_reason) == (JobState.FAILED, BROKEN.reason)


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, Outcome(JobState.CANCELLED)], ids=lambda o: str(o.state))
async def test_the_end_of_a_job_is_the_end_of_all_of_it(book: Books, outcome: Outcome) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.begin_stage(lease, "base")
    await cell.finish(lease, outcome)
    await cell.finish(lease, outcome)  # again, as if the first answer had been lost
    job = await book.store.job(lease.job_id)
    assert job.state is outcome.state
    assert job.reason == (outcome.failure.reason if outcome.failure else "")
    assert job.end_time
    assert job.executions[0].state.is_final
    assert job.timeline[0].state is StageState.FAILED
    assert (await cell.beat([lease])).held == frozenset()
    assert await (await book.cell("cell")).claim() is None
    with pytest.raises(LeaseLost):
        await cell.begin_stage(lease, "more")
    with pytest.raises(FailedPrecondition) as refused:
        await book.store.cancel_job(lease.job_id)
    assert refused.value.metadata["state"] == outcome.state


async def test_a_wish_to_end_reaches_the_owner_and_the_next_one(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    asked = await book.store.cancel_execution(lease.execution_id)
    assert asked.state is ExecutionState.PENDING
    assert (await book.store.cancel_job(lease.job_id)).cancel_requested, "twice is fine"
    assert (await cell.beat([lease])).cancel_requested == {lease.job_id}
    await expire_leases(book)
    assert (await claimed(cell)).cancel_requested


@pytest.mark.parametrize("is_parked", [False, True])
async def test_an_execution_that_has_ended_ends_its_job_while_that_is_live(book: Books, is_parked: bool) -> None:
    """The job may be checking the result, or waiting for a person."""
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT, state=ExecutionState.SUCCEEDED))
    if is_parked:
        await cell.park(lease, question(lease))
    else:
        await cell.begin_stage(lease, "verify")
    asked = await book.store.cancel_execution(lease.execution_id)
    assert asked.state is ExecutionState.SUCCEEDED, "it has ended, and its job has not"
    if is_parked:
        lease = await claimed(cell)
        assert lease.cancel_requested
    else:
        assert (await cell.beat([lease])).cancel_requested == {lease.job_id}
    await cell.finish(lease, Outcome(JobState.CANCELLED))
    with pytest.raises(FailedPrecondition) as refused:
        await book.store.cancel_execution(lease.execution_id)
    assert (refused.value.reason, refused.value.metadata["state"]) == ("JOB_STATE", "CANCELLED")


async def test_an_execution_of_an_earlier_attempt_ends_the_job_that_waits_for_its_next(book: Books) -> None:
    await book.admit()
    lease = await claimed(await book.cell("cell"))
    await (await book.cell("cell")).retry(lease, Retry(BROKEN, 60.0))
    assert (await book.store.cancel_execution(lease.execution_id)).job_state is JobState.CANCELLED


async def test_a_job_that_nobody_has_ends_at_once(book: Books) -> None:
    view = await book.admit()
    ended = await book.store.cancel_job(view.spec.job_id)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, "")
    assert ended.executions[0].state is ExecutionState.CANCELLED
    assert await (await book.cell("cell")).claim() is None


async def work_item(book: Books) -> str:
    order = (await book.admit()).spec
    await book.store.cancel_job(order.job_id)
    item = WorkItem(work_item_id="item", project_id="default", title="Mend it", create_time=order.create_time)
    return (await CatalogStore(book.engine).create(WORK_ITEMS, item)).work_item_id


@pytest.mark.parametrize(
    ("outcome", "state"), [(SUCCEEDED, WorkItemState.REVIEW), (FAILED, WorkItemState.TODO)], ids=["good", "bad"]
)
async def test_a_work_item_follows_its_job(book: Books, outcome: Outcome, state: WorkItemState) -> None:
    item, catalog = await work_item(book), CatalogStore(book.engine)
    await book.admit(work_item_id=item)
    assert (await catalog.get(WORK_ITEMS, item)).state is WorkItemState.IN_PROGRESS
    cell = await book.cell("cell")
    await cell.finish(await claimed(cell), outcome)
    assert (await catalog.get(WORK_ITEMS, item)).state is state


async def test_of_many_jobs_for_one_work_item_one_is_admitted(book: Books) -> None:
    item = await work_item(book)
    results = await asyncio.gather(*(book.admit(work_item_id=item) for _ in range(6)), return_exceptions=True)
    (busy,) = {type(result) for result in results if isinstance(result, BaseException)}
    assert busy is FailedPrecondition
    (admitted,) = [result for result in results if not isinstance(result, BaseException)]
    refusal = next(result for result in results if isinstance(result, FailedPrecondition))
    assert refusal.reason == "WORK_ITEM_BUSY"
    assert refusal.metadata["job_id"] == admitted.spec.job_id


ACTIONS = st.lists(
    st.sampled_from(["admit", "claim a", "claim b", "restart a", "expire", "write", "finish", "cancel", "beat"]),
    min_size=4,
    max_size=30,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(actions=ACTIONS)
async def test_only_the_last_owner_of_a_job_is_heard(book: Books, actions: list[str]) -> None:
    """Whatever happens, in any order, only the highest fence that was given out for a job counts."""
    await clear(book)
    owners = {"a": await book.cell("a"), "b": await book.cell("b")}
    leases: list[tuple[str, Lease]] = []
    for number, action in enumerate(actions):
        match action.split():
            case ["admit"]:
                await book.admit()
            case ["claim", name]:
                lease = await owners[name].claim()
                if lease is not None:
                    known = [old.fence for _, old in leases if old.job_id == lease.job_id]
                    assert lease.fence > max(known, default=0)
                    leases.append((name, lease))
            case ["restart", name]:
                owners[name] = await book.cell(name)
            case ["expire"]:
                await expire_leases(book)
            case ["cancel"] if leases and await _runs(book, leases[0][1].job_id):
                await book.store.cancel_job(leases[0][1].job_id)
            case [word]:
                for name, lease in leases:
                    newest = max(other.fence for _, other in leases if other.job_id == lease.job_id)
                    current = lease.fence == newest
                    held = current and await _runs(book, lease.job_id)
                    if word == "beat":
                        assert (await owners[name].beat([lease])).held <= ({lease.job_id} if held else set())
                    elif word == "write":
                        assert await _succeeds(owners[name].begin_stage(lease, f"stage-{number}")) is held
                    elif word == "finish":
                        assert await _succeeds(owners[name].finish(lease, SUCCEEDED)) is current


async def _runs(book: Books, job_id: str) -> bool:
    return (await book.store.job(job_id)).state is JobState.RUNNING


async def _succeeds(write) -> bool:
    try:
        await write
    except LeaseLost:
        return False
    return True


async def test_a_claimer_gets_what_it_wants_up_to_its_capacity(book: Books) -> None:
    other, mine = (
        await book.admit(priority=5),
        await book.admit(agent=AgentSettings(engine=AnthropicEngine(), model="m")),
    )
    claimed_by = (await book.cell("cell")).claim
    assert await claimed_by(ClaimFilter(project_ids=frozenset())) is None, "none, not any"
    assert await claimed_by(ClaimFilter(kinds=frozenset({"review"}))) is None
    lease = await claimed_by(ClaimFilter(engines=frozenset({"anthropic"}), capacity=1))
    assert lease
    assert lease.job_id == mine.spec.job_id
    assert await claimed_by(ClaimFilter(capacity=1)) is None
    await expire_leases(book)
    again = await claimed_by(ClaimFilter(kinds=frozenset({"review"})))
    assert again is None, "what ran out is wanted, or not"
    found = [await claimed_by(ClaimFilter(capacity=2)), await claimed_by(ClaimFilter(capacity=2))]
    assert [lease.job_id for lease in found if lease] == [mine.spec.job_id, other.spec.job_id]


async def test_a_hook_that_is_called_again_is_told_the_same(book: Books) -> None:
    await book.admit()
    cell = await book.cell("cell")
    lease = await claimed(cell)
    await cell.begin_stage(lease, "post-hook-1")
    told = await cell.document(lease, "post-hook-1", SUCCEEDED)
    restarted = await book.cell("cell")
    lease = await claimed(restarted)
    await restarted.begin_stage(lease, "post-hook-1")
    assert await restarted.document(lease, "post-hook-1", SUCCEEDED) == told

    await restarted.begin_stage(lease, "post-hook-2", [StageEnd(Stage("post-hook-1", StageState.DONE, "{}"))])
    assert (await restarted.attempt(lease)).stages["post-hook-1"].result == "{}"
    assert await restarted.document(lease, "post-hook-2", SUCCEEDED) != told
