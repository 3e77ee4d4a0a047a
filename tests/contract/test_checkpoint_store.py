"""Checkpoints on every kind of database: each question has one answer, and none waits for ever."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, NotFound
from services.gateway.checkpoints.store import checkpoint_key
from services.gateway.ledger.fleet import AWAY_LEASES
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.values.checkpoints import Checkpoint, CheckpointDecision, CheckpointFilter, Decider
from services.lifecycle.ledger import Lease, LeaseLost, Stage, StageEnd
from services.lifecycle.model.checkpoint import CheckpointState, Decision
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.output import ChangeKind, DiffSummary, FileChange, Output
from services.lifecycle.model.states import JobState, StageState
from tests.kit.ledger import Books, age_heartbeat, claimed, clear, expire_checkpoints, expire_leases, question, set_job

STATE = CheckpointState
ANN = Decider(name="ann", peer="ipv4:192.0.2.1:9", via="grpc-test/1")


def decision(state: CheckpointState, comment: str = "because") -> CheckpointDecision:
    return CheckpointDecision(state=state, comment=comment, decider=ANN)


async def asking(book: Books, cell: SqlLedger, **fields: object) -> tuple[Lease, Checkpoint]:
    """Make a job ask; return its last lease and the checkpoint."""
    await book.admit()
    lease = await claimed(cell)
    await cell.park(lease, replace(question(lease), **fields))  # type: ignore[arg-type]
    (asked,) = (await book.store.job(lease.job_id)).checkpoints
    return lease, asked


async def test_a_question_is_kept_as_it_was_asked(book: Books) -> None:
    files = (FileChange(b"\xff", ChangeKind.ADDED, additions=1),)
    output = Output(summary="done", changes=DiffSummary(files=files, total_files=1), commit_id="c0ffee")
    lease, asked = await asking(book, await book.cell("cell"), output=output, round=2, seconds=90.0)
    assert await book.checkpoints.get(asked.checkpoint_id) == asked
    assert (asked.job_id, asked.project_id, asked.execution_id) == (lease.job_id, "default", lease.execution_id)
    assert (asked.name, asked.round, asked.output, asked.state) == ("push", 2, output, STATE.PENDING)
    assert asked.question == "May it go on?�", "PostgreSQL keeps no NUL"
    assert 89 < (asked.expire_time - asked.create_time).total_seconds() < 91
    with pytest.raises(NotFound):
        await book.checkpoints.get("check-none")


async def test_a_job_that_asks_is_nobodys_until_it_is_answered(book: Books) -> None:
    cell = await book.cell("cell")
    lease, asked = await asking(book, cell)
    job = await book.store.job(lease.job_id)
    assert (job.state, job.checkpoints) == (JobState.AWAITING_APPROVAL, (asked,))
    await cell.park(lease, question(lease))  # again, as if the first answer had been lost
    assert await book.store.job(lease.job_id) == job
    assert (await cell.beat([lease])).held == frozenset()
    for late in (cell.begin_stage(lease, "more"), cell.decision(lease, "push")):
        with pytest.raises(LeaseLost):
            await late
    restarted = await book.cell("cell")
    assert await restarted.claim() is None
    await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.APPROVED))
    again = await claimed(restarted)
    assert (again.job_id, again.attempt, again.execution_id) == (lease.job_id, 1, lease.execution_id)
    assert await restarted.decision(again, "push") == Decision(STATE.APPROVED, "because", "ann")
    assert await restarted.decision(again, "other") is None
    with pytest.raises(LeaseLost):
        await cell.park(lease, question(lease, "other"))


@pytest.mark.parametrize("first", [STATE.APPROVED, STATE.REJECTED, STATE.CHANGES_REQUESTED])
async def test_the_first_answer_holds(book: Books, first: CheckpointState) -> None:
    _, asked = await asking(book, await book.cell("cell"))
    decided, holds = await book.checkpoints.decide(asked.checkpoint_id, decision(first))
    assert holds
    assert (decided.state, decided.comment, decided.decider) == (first, "because", ANN)
    assert decided.decide_time
    for late in (STATE.APPROVED, STATE.REJECTED, STATE.CHANGES_REQUESTED, first):
        assert await book.checkpoints.decide(asked.checkpoint_id, decision(late, "too late")) == (decided, False)


async def test_of_many_answers_at_once_one_holds(book: Books) -> None:
    _, asked = await asking(book, await book.cell("cell"))
    given = [decision(STATE.REJECTED if number % 2 else STATE.APPROVED, f"{number}") for number in range(8)]
    answers = await asyncio.gather(*(book.checkpoints.decide(asked.checkpoint_id, answer) for answer in given))
    ((held, winner),) = [(checkpoint, own) for own, (checkpoint, holds) in zip(given, answers, strict=True) if holds]
    assert (held.state, held.comment) == (winner.state, winner.comment)
    assert {checkpoint.comment for checkpoint, _ in answers} == {held.comment}, "all are told the same"


async def test_what_nobody_answers_expires_by_the_databases_clock(book: Books) -> None:
    cell = await book.cell("cell")
    lease, asked = await asking(book, cell)
    await expire_checkpoints(book)
    expired = await book.checkpoints.get(asked.checkpoint_id)
    assert (expired.state, expired.decide_time) == (STATE.EXPIRED, expired.expire_time), "though nobody came by"
    assert await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.APPROVED)) == (expired, False)
    again = await claimed(cell)
    assert again.job_id == lease.job_id
    assert await cell.decision(again, "push") == Decision(STATE.EXPIRED)


async def test_changes_cannot_be_asked_for_everywhere(book: Books) -> None:
    _, asked = await asking(book, await book.cell("cell"), takes_changes=False)
    with pytest.raises(FailedPrecondition) as refused:
        await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.CHANGES_REQUESTED))
    assert refused.value.reason == "CHANGES_NOT_POSSIBLE"
    assert (await book.checkpoints.get(asked.checkpoint_id)).state is STATE.PENDING
    assert (await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.APPROVED)))[1]


async def test_a_cancel_wakes_what_waits_and_what_is_about_to(book: Books) -> None:
    cell = await book.cell("cell")
    lease, asked = await asking(book, cell)
    assert (await book.store.cancel_job(lease.job_id)).state is JobState.AWAITING_APPROVAL
    again = await claimed(cell)
    assert again.cancel_requested
    await cell.park(again, question(again, "another"))  # its driver had not heard of the cancellation yet
    last = await claimed(cell)
    await cell.finish(last, Outcome(JobState.CANCELLED))
    states = {one.name: one.state for one in (await book.store.job(lease.job_id)).checkpoints}
    assert states == {"push": STATE.WITHDRAWN, "another": STATE.WITHDRAWN}
    withdrawn, holds = await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.APPROVED))
    assert (withdrawn.state, holds) == (STATE.WITHDRAWN, False)


async def test_a_lost_cells_question_is_asked_anew(book: Books) -> None:
    first, second = await book.cell("first"), await book.cell("second")
    lease, asked = await asking(book, first)
    await age_heartbeat(book, "first", 60.0 * AWAY_LEASES + 5)
    assert await second.claim() is None, "nobody needs it before it is answered"
    await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.APPROVED))
    taken = await claimed(second)
    assert (taken.attempt, await second.decision(taken, "push")) == (2, None)
    await second.park(taken, question(taken))
    before, now = (await book.store.job(lease.job_id)).checkpoints
    assert (before.state, now.state) == (STATE.APPROVED, STATE.PENDING)
    assert (now.execution_id, now.checkpoint_id != before.checkpoint_id) == (taken.execution_id, True)


async def test_a_question_after_the_push_is_the_same_on_another_cell(book: Books) -> None:
    first, second = await book.cell("first"), await book.cell("second")
    await book.admit()
    lease = await claimed(first)
    await first.begin_stage(lease, "push")
    await first.end_stage(lease, StageEnd(Stage("push", StageState.DONE, "{}")))
    await first.park(lease, question(lease, "end"))
    (asked,) = (await book.store.job(lease.job_id)).checkpoints
    await book.checkpoints.decide(asked.checkpoint_id, decision(STATE.APPROVED))
    await age_heartbeat(book, "first", 60.0 * AWAY_LEASES + 5)
    taken = await claimed(second)
    assert (taken.attempt, taken.is_moved) == (1, True)
    assert await second.decision(taken, "end") == Decision(STATE.APPROVED, "because", "ann")


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.SUCCEEDED, JobState.CANCELLED])
async def test_what_is_carried_no_more_is_not_parked(book: Books, state: JobState) -> None:
    cell = await book.cell("cell")
    await book.admit()
    lease = await claimed(cell)
    await set_job(book, lease.job_id, state=state, held=False)
    with pytest.raises(LeaseLost):
        await cell.park(lease, question(lease))
    assert (await book.store.job(lease.job_id)).checkpoints == ()


async def test_filters_and_pages(book: Books) -> None:
    cell = await book.cell("cell")
    asked = [(await asking(book, cell))[1] for _ in range(5)]
    await book.checkpoints.decide(asked[0].checkpoint_id, decision(STATE.APPROVED))
    await book.checkpoints.decide(asked[1].checkpoint_id, decision(STATE.REJECTED))

    async def checkpoint_ids(size: int = 50, **fields: object) -> list[str]:
        page, ids = Page(size), []
        while True:
            rows = await book.checkpoints.page(CheckpointFilter(**fields), page)  # type: ignore[arg-type]
            ids += [row.checkpoint_id for row in rows[:size]]
            if len(rows) <= size:
                return ids
            page = replace(page, after=checkpoint_key(rows[size - 1]))

    newest = [one.checkpoint_id for one in reversed(asked)]
    assert await checkpoint_ids() == await checkpoint_ids(2) == newest
    assert await checkpoint_ids(1, states=frozenset({STATE.PENDING})) == newest[:3]
    assert await checkpoint_ids(states=frozenset({STATE.APPROVED, STATE.REJECTED})) == newest[3:]
    assert await checkpoint_ids(job_id=asked[2].job_id) == [asked[2].checkpoint_id]
    assert await checkpoint_ids(project_id="other") == await checkpoint_ids(states=frozenset({STATE.EXPIRED})) == []
    await expire_checkpoints(book)
    assert await checkpoint_ids(states=frozenset({STATE.PENDING})) == []
    assert await checkpoint_ids(states=frozenset({STATE.EXPIRED, STATE.REJECTED})) == newest[:4]


ACTIONS = st.lists(
    st.sampled_from(["claim a", "claim b", "park", "yes", "no", "changes", "overdue", "cancel", "lost", "restart a"]),
    min_size=3,
    max_size=20,
)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(actions=ACTIONS)
async def test_no_order_of_things_changes_an_answer_or_loses_a_job(book: Books, actions: list[str]) -> None:
    """A question that was decided stays decided, and a job waits only while its newest question does."""
    await clear(book)
    job_id = (await book.admit()).spec.job_id
    cells = {"a": await book.cell("a"), "b": await book.cell("b")}
    owner, lease, decided = "a", await claimed(cells["a"]), dict[str, Checkpoint]()
    answers = {"yes": STATE.APPROVED, "no": STATE.REJECTED, "changes": STATE.CHANGES_REQUESTED}
    for number, action in enumerate(actions):
        job = await book.store.job(job_id)
        if job.state.is_final or job.state is JobState.PENDING:
            return  # the job was lost with too many cells, or waits for another attempt
        asked = job.checkpoints
        match action.split():
            case ["claim", name]:
                taken = await cells[name].claim()
                if taken is not None:
                    assert not asked or asked[-1].state is not STATE.PENDING or taken.cancel_requested
                    owner, lease = name, taken
            case ["restart", name]:
                cells[name] = await book.cell(name)
            case ["park"]:
                try:
                    await cells[owner].park(lease, question(lease, f"step-{number}"))
                except LeaseLost:
                    pytest.fail("the newest lease is the job's")
            case ["overdue"]:
                await expire_checkpoints(book)
            case ["cancel"]:
                await book.store.cancel_job(job_id)
            case ["lost"]:
                await expire_leases(book)
            case [word] if asked:
                _, holds = await book.checkpoints.decide(asked[-1].checkpoint_id, decision(answers[word]))
                assert holds is (asked[-1].state is STATE.PENDING)
        job = await book.store.job(job_id)
        for one in job.checkpoints:
            known = decided.get(one.checkpoint_id)
            assert known is None or known.state is one.state, "what was decided stays"
            if one.state is not STATE.PENDING:
                decided[one.checkpoint_id] = one
        waits = [one for one in job.checkpoints if one.state is STATE.PENDING]
        assert len(waits) <= 1 or job.cancel_requested
        if job.state is JobState.AWAITING_APPROVAL and (job.cancel_requested or not waits):
            lease = await claimed(cells[owner])
