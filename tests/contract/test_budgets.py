"""Budgets hold: on every database, whoever asks at once, however attempts end."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from boatyard.gateway.v1 import budget_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, Invalid, NotFound
from services.gateway.budgets.servicer import BudgetServicer
from services.gateway.budgets.store import BudgetStore
from services.gateway.catalog.store import WORKERS, CatalogStore
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.wire import job_to_proto
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.budgets import budget_use, budgets, reservations
from services.gateway.schema.catalog import projects
from services.gateway.values.budgets import BudgetPeriod, BudgetScope
from services.gateway.values.catalog import Worker
from services.gateway.values.jobs import JobFilter
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.budgets import BudgetLimits, ModelNeed, Settlement, nanodollars
from services.lifecycle.model.floor import Floor
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, claimed, expire_leases, question

TIME = datetime(2026, 1, 2, tzinfo=UTC)
SUCCEEDED = Outcome(JobState.SUCCEEDED)


async def add_budget(book: Books, name: str = "all", **values: Any) -> None:
    row = {"project_id": "default", "scope": BudgetScope.PROJECT, "period": BudgetPeriod.NONE, "create_time": TIME}
    async with book.engine.begin() as connection:
        await connection.execute(insert(budgets).values(row | {"budget_id": name} | values))


def of(**limits: Any) -> Policy[None]:
    return Policy(budget=BudgetLimits(**limits))


async def job(book: Books, cell: SqlLedger, **limits: Any) -> Lease:
    await book.admit(policy=of(**limits) if limits else Policy())
    return await claimed(cell)


def need(lease: Lease, ask: str, cost: float | None = 1.0, tokens: int = 100, execution: str = "") -> ModelNeed:
    execution_id = execution or lease.execution_id
    return ModelNeed(execution_id=execution_id, ask_id=ask, tokens=tokens, cost_usd=cost, model="big-1")


def used(asked: ModelNeed, cost: float | None = 1.0, tokens: int = 100, **more: bool) -> Settlement:
    return Settlement(execution_id=asked.execution_id, ask_id=asked.ask_id, tokens=tokens, cost_usd=cost, **more)


async def books_of(book: Books) -> dict[tuple[str, str], tuple[float, int, int, float, int, int]]:
    """Return what is spent and reserved: dollars, tokens, requests; by budget and subject."""
    async with book.engine.begin() as connection:
        rows = (await connection.execute(select(budget_use))).all()
    return {
        (row.budget_id, row.subject_id): (
            row.spent_nanodollars / 1e9,
            row.spent_tokens,
            row.spent_requests,
            row.reserved_nanodollars / 1e9,
            row.reserved_tokens,
            row.reserved_requests,
        )
        for row in rows
    }


async def told(book: Books, lease: Lease) -> list[str]:
    timeline = (await book.store.job(lease.job_id)).timeline
    return [stage.name for stage in timeline if stage.name.startswith("budget-")]


async def test_without_a_budget_everything_is_granted_and_nothing_counted(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell)
    assert not (await cell.attempt(lease)).context.has_budgets
    assert (await cell.reserve(lease, need(lease, "1", cost=None))).is_granted
    assert await books_of(book) == {}


@pytest.mark.parametrize("wanted", [1, 3, 7])
async def test_as_many_requests_as_a_budget_has_and_no_more(book: Books, wanted: int) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, requests=wanted)
    assert (await cell.attempt(lease)).context.has_budgets
    answers = []
    for number in range(wanted + 2):
        asked = need(lease, str(number))
        answers.append(await cell.reserve(lease, asked))
        await cell.settle(lease, used(asked))
    assert [answer.is_granted for answer in answers] == [True] * wanted + [False] * 2
    assert {answer.reason for answer in answers[wanted:]} == {"BUDGET_EXCEEDED"}
    assert answers[-1].message == (
        f"the job's budget has too little left: {wanted} of {wanted} requests spent; the request may need 1 requests"
    )
    assert [answer.is_last for answer in answers[:wanted]] == [False] * (wanted - 1) + [True]
    assert (await books_of(book))["", lease.job_id] == (wanted, wanted * 100, wanted, 0, 0, 0)


async def test_what_is_only_reserved_is_waited_for(book: Books) -> None:
    """Requests use less than they might: the second one fits once the first has ended."""
    cell = await book.cell("cell")
    lease = await job(book, cell, cost_usd=2.5)
    first, second = need(lease, "1", 2.0), need(lease, "2", 2.0)
    assert (await cell.reserve(lease, first)).is_granted
    waits = await cell.reserve(lease, second)
    assert not waits.is_granted
    assert (waits.reason, waits.retry_seconds > 0) == ("", True)
    await cell.settle(lease, used(first, 0.1))
    assert (await cell.reserve(lease, second)).is_granted


async def test_an_ask_is_reserved_and_settled_once(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, requests=10)
    asked = need(lease, "1")
    for _ in range(3):
        assert (await cell.reserve(lease, asked)).is_granted
    for _ in range(3):
        await cell.settle(lease, used(asked, 0.25, 10))
    assert (await cell.reserve(lease, asked)).is_granted  # by a driver that reads the events from the beginning
    await cell.settle(lease, used(need(lease, "never reserved")))
    assert await books_of(book) == {("", lease.job_id): (0.25, 10, 1, 0, 0, 0)}


async def test_what_nobody_was_billed_for_is_given_back(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, requests=1)
    for number in range(3):
        asked = need(lease, str(number))
        assert (await cell.reserve(lease, asked)).is_granted
        await cell.settle(lease, used(asked, None, 0, is_released=True))
    assert await books_of(book) == {("", lease.job_id): (0, 0, 0, 0, 0, 0)}


async def test_a_use_of_unknown_cost_counts_as_what_was_reserved(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, cost_usd=10)
    asked = need(lease, "1", 3.0)
    await cell.reserve(lease, asked)
    await cell.settle(lease, used(asked, None, 7))
    assert await books_of(book) == {("", lease.job_id): (3.0, 7, 1, 0, 0, 0)}


@pytest.mark.parametrize("allowed", [False, True])
async def test_dollars_refuse_a_model_without_a_price_unless_they_are_told(book: Books, allowed: bool) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, cost_usd=10, allow_unknown_cost=allowed)
    answer = await cell.reserve(lease, need(lease, "1", None))
    assert answer.is_granted is allowed
    if not allowed:
        assert answer.reason == "BUDGET_EXCEEDED"
        assert "no price is known of the model 'big-1'" in answer.message
        assert "unknown-cost" in answer.message
    await cell.finish(lease, SUCCEEDED)
    async with book.engine.begin() as connection:
        unknown = (await connection.execute(select(budget_use.c.requests_of_unknown_cost))).scalar_one()
    assert unknown == allowed


async def test_all_budgets_have_a_request_or_none(book: Books) -> None:
    await add_budget(book, "each", scope=BudgetScope.EXECUTION, limits=BudgetLimits(requests=5))
    await add_budget(book, "small", limits=BudgetLimits(requests=1))
    await add_budget(book, "gone", limits=BudgetLimits(requests=0), delete_time=TIME)
    await add_budget(book, "workers", scope=BudgetScope.WORKER, limits=BudgetLimits(requests=0))
    cell = await book.cell("cell")
    lease = await job(book, cell, requests=5)
    await cell.reserve(lease, need(lease, "1"))
    await cell.settle(lease, used(need(lease, "1")))
    before = await books_of(book)
    answer = await cell.reserve(lease, need(lease, "2"))
    assert not answer.is_granted
    assert answer.message.startswith("budget small has too little left: 1 of 1 requests")
    assert await books_of(book) == before
    assert set(before) == {("", lease.job_id), ("each", lease.execution_id), ("small", "default")}


async def test_a_worker_has_its_own_in_each_scope(book: Books) -> None:
    for name in ("ann", "bob"):
        worker = Worker(worker_id=name, project_id="default", display_name=name, create_time=TIME)
        await CatalogStore(book.engine).create(WORKERS, worker)
    await add_budget(book, "anns", scope=BudgetScope.JOB, worker_id="ann", limits=BudgetLimits(requests=1))
    await add_budget(book, "each", scope=BudgetScope.WORKER, limits=BudgetLimits(requests=2))
    cell = await book.cell("cell")
    seen = []
    for name in ("ann", "ann", "bob", ""):
        await book.admit(worker_id=name)
        lease = await claimed(cell)
        answers = [await cell.reserve(lease, need(lease, str(number))) for number in range(3)]
        seen.append(sum(answer.is_granted for answer in answers))
        await cell.finish(lease, SUCCEEDED)
    assert seen == [1, 1, 2, 3]


async def test_a_period_begins_anew(book: Books) -> None:
    await add_budget(book, "daily", period=BudgetPeriod.DAY, limits=BudgetLimits(requests=1))
    cell = await book.cell("cell")
    lease = await job(book, cell)
    assert (await cell.reserve(lease, need(lease, "1"))).is_granted
    assert not (await cell.reserve(lease, need(lease, "2"))).is_granted
    async with book.engine.begin() as connection:
        await connection.execute(update(budget_use).values(period="2026-01-02"))
        await connection.execute(update(reservations).values(keys=(("daily", "default", "2026-01-02"),)))
    assert (await cell.reserve(lease, need(lease, "2"))).is_granted
    await cell.settle(lease, used(need(lease, "1")))  # counts where it was reserved
    async with book.engine.begin() as connection:
        rows = (await connection.execute(select(budget_use.c.period, budget_use.c.spent_requests))).all()
    assert {(row.period == "2026-01-02", row.spent_requests) for row in rows} == {(True, 1), (False, 0)}


@pytest.mark.parametrize(("moment", "expected"), [(BudgetPeriod.NONE, ""), (BudgetPeriod.DAY, "2026-01-02")])
def test_periods_are_named_by_their_beginning(moment: BudgetPeriod, expected: str) -> None:
    assert moment.of(TIME) == expected
    assert BudgetPeriod.MONTH.of(TIME) == "2026-01"


@pytest.mark.parametrize("end", ["finished", "failed", "tried again", "parked", "taken over", "cancelled"])
async def test_nothing_stays_reserved_however_an_attempt_ends(book: Books, end: str) -> None:
    """What was let through and never heard of again may have been used up."""
    await add_budget(book, "all", limits=BudgetLimits(cost_usd=100))
    cell, other = await book.cell("cell"), await book.cell("other")
    lease = await job(book, cell, cost_usd=50)
    for number in range(3):
        assert (await cell.reserve(lease, need(lease, str(number), 2.0, 10))).is_granted
    await cell.settle(lease, used(need(lease, "0"), 0.5, 5))
    match end:
        case "finished":
            await cell.finish(lease, SUCCEEDED)
        case "failed":
            await cell.finish(lease, Outcome(JobState.FAILED, Failure("RUNNER_LOST", "It is gone.")))
        case "cancelled":
            await cell.finish(lease, Outcome(JobState.CANCELLED))
        case "tried again":
            await cell.retry(lease, Retry(Failure("NODE_LOST", "It is gone."), 0))
        case "parked":
            await cell.park(lease, question(lease))
        case "taken over":
            await expire_leases(book)
            await claimed(other)
    expected = (4.5, 25, 3, 0, 0, 0)
    assert await books_of(book) == {("", lease.job_id): expected, ("all", "default"): expected}
    with pytest.raises(LeaseLost):
        await cell.reserve(lease, need(lease, "late"))
    with pytest.raises(LeaseLost):
        await cell.settle(lease, used(need(lease, "1")))
    assert (await books_of(book))["all", "default"] == expected


async def test_a_job_has_one_budget_for_all_its_attempts(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, requests=3)
    await cell.reserve(lease, need(lease, "1"))
    await cell.retry(lease, Retry(Failure("NODE_LOST", "It is gone."), 0))
    again = await claimed(cell)
    assert again.attempt == 2
    answers = [await cell.reserve(again, need(again, ask)) for ask in "1234"]
    assert [answer.is_granted for answer in answers] == [True, True, False, False]


async def test_nobody_reserves_for_another_job(book: Books) -> None:
    """A machine that holds one job may not spend in the name of another's execution, nor settle for it."""
    cell = await book.cell("cell")
    mine, other = await job(book, cell, requests=5), await job(book, cell, requests=5)
    with pytest.raises(Invalid):
        await cell.reserve(mine, need(other, "1"))
    await cell.reserve(other, need(other, "1"))
    with pytest.raises(Invalid):
        await cell.settle(mine, used(need(other, "1")))
    assert set(await books_of(book)) == {("", other.job_id)}


async def test_shares_are_told_once(book: Books) -> None:
    await add_budget(book, "all", limits=BudgetLimits(requests=20))
    cell = await book.cell("cell")
    lease = await job(book, cell, tokens=1000)
    seen = []
    for number in range(10):
        asked = need(lease, str(number))
        await cell.reserve(lease, asked)
        for _ in range(2):  # as after a kill
            await cell.settle(lease, used(asked))
        seen.append(await told(book, lease))
    assert [len(names) for names in seen] == [0] * 4 + [1] * 3 + [2] * 1 + [2, 4]
    assert sorted(seen[-1]) == ["budget-100", "budget-50", "budget-50-2", "budget-80"]
    timeline = (await book.store.job(lease.job_id)).timeline
    texts = {stage.name: stage.message for stage in timeline}
    assert texts["budget-80"] == "the job's budget: 800 of 1,000 tokens spent"


@pytest.mark.parametrize("is_own", [False, True])
async def test_shares_of_a_raised_budget_are_told_again(book: Books, is_own: bool) -> None:
    if not is_own:
        await add_budget(book, limits=BudgetLimits(requests=2))
    cell = await book.cell("cell")
    lease = await job(book, cell, **({"requests": 2} if is_own else {}))

    async def spend(lease: Lease, ask: str) -> list[str]:
        await cell.reserve(lease, need(lease, ask))
        await cell.settle(lease, used(need(lease, ask)))
        timeline = (await book.store.job(lease.job_id)).timeline
        return [stage.message for stage in timeline if stage.name.startswith("budget-")]

    assert [len(await spend(lease, ask)) for ask in "12"] == [1, 2]
    if is_own:
        await cell.finish(lease, Outcome(JobState.FAILED, Failure("BUDGET_EXCEEDED", "It is spent.")))
        more = {"budget": BudgetLimits(requests=4), "key": None}
        await Retries(book.engine, book.notifier).retry(lease.job_id, from_snapshot=False, **more)
        lease = await claimed(cell)
    else:
        raised = pb.Budget(budget_id="all", limits=pb.BudgetLimits(requests=4))
        update = pb.UpdateBudgetRequest(budget=raised, update_mask=FieldMask(paths=["limits"]))
        await BudgetServicer(CatalogStore(book.engine), BudgetStore(book.engine)).UpdateBudget(update, None)
    whose = "the job's budget" if is_own else "budget all"
    assert f"{whose}: 3 of 4 requests spent" in await spend(lease, "3")
    assert f"{whose}: 4 of 4 requests spent" in await spend(lease, "4")


@pytest.mark.parametrize("cells", [1, 3])
async def test_a_budget_holds_whoever_asks_at_once(book: Books, cells: int) -> None:
    """Many agents of several cells spend from three budgets; some end with requests that nobody hears of again."""
    await add_budget(book, "daily", period=BudgetPeriod.DAY, limits=BudgetLimits(cost_usd=5, requests=25))
    await add_budget(book, "ever", limits=BudgetLimits(tokens=2_000))
    ledgers = [await book.cell(f"cell-{number}") for number in range(cells)]
    chance = random.Random(cells)

    async def agent(ledger: SqlLedger) -> Counter[str]:
        lease = await claimed(ledger)
        seen: Counter[str] = Counter()
        for number in range(4):
            asked = need(lease, str(number), chance.uniform(0.1, 0.6), chance.randrange(50, 200))
            answer = await ledger.reserve(lease, asked)
            seen["granted" if answer.is_granted else answer.reason or "waits"] += 1
            if answer.is_granted and chance.random() < 0.8:
                await ledger.settle(lease, used(asked, (asked.cost_usd or 0) * chance.random(), asked.tokens // 2))
        if chance.random() < 0.5:
            await ledger.finish(lease, SUCCEEDED)
        else:
            await ledger.retry(lease, Retry(Failure("NODE_LOST", "It is gone."), 3600))
        return seen

    for _ in range(8):
        await book.admit(policy=of(requests=3))
    seen = sum(await asyncio.gather(*(agent(ledgers[number % cells]) for number in range(8))), Counter[str]())
    assert seen["granted"] > 10
    entries = await books_of(book)
    cost, _, requests, *reserved = entries["daily", "default"]
    assert cost <= 5
    assert requests <= 25
    assert entries["ever", "default"][1] <= 2_000
    assert all(entry[3:] == (0, 0, 0) for entry in entries.values()), reserved
    assert sum(entry[2] for key, entry in entries.items() if key[0] == "") == requests


async def test_what_is_spent_is_shown_with_the_budget(book: Books) -> None:
    servicer = BudgetServicer(CatalogStore(book.engine), BudgetStore(book.engine))
    context: Any = None
    limits = pb.BudgetLimits(cost_usd=2.5, requests=3)
    wanted = pb.Budget(budget_id="all", scope=pb.Budget.SCOPE_PROJECT, limits=limits)
    created = (await servicer.CreateBudget(pb.CreateBudgetRequest(budget=wanted), context)).budget
    assert (created.project_id, created.limits, list(created.uses)) == ("default", limits, [])
    cell = await book.cell("cell")
    lease = await job(book, cell)
    assert (await cell.attempt(lease)).context.has_budgets
    for ask in "123":
        await cell.reserve(lease, need(lease, ask, 0.5))
    await cell.settle(lease, used(need(lease, "1"), 0.25, 40))
    (shown,) = (await servicer.ListBudgets(pb.ListBudgetsRequest(), context)).budgets
    (use,) = shown.uses
    assert use.spender == "default"
    assert use.spent == pb.Spending(cost_usd=0.25, tokens=40, requests=1)
    assert use.reserved == pb.Spending(cost_usd=1, tokens=200, requests=2)
    assert use.left == pb.Spending(cost_usd=1.25, requests=0)
    refused = await cell.reserve(lease, need(lease, "4", 0.5))
    assert refused.retry_seconds
    more = pb.Budget(budget_id="all", limits=pb.BudgetLimits(requests=9))
    mask = FieldMask(paths=["limits.requests"])
    await servicer.UpdateBudget(pb.UpdateBudgetRequest(budget=more, update_mask=mask), context)
    assert (await cell.reserve(lease, need(lease, "4", 0.5))).is_granted  # from the next request on
    await servicer.DeleteBudget(pb.DeleteBudgetRequest(budget_id="all"), context)
    await cell.settle(lease, used(need(lease, "2")))  # counts nowhere
    assert await books_of(book) == {}
    assert (await cell.reserve(lease, need(lease, "5", 100.0))).is_granted
    with pytest.raises(NotFound):
        await servicer.GetBudget(pb.GetBudgetRequest(budget_id="all"), context)


async def test_the_jobs_budget_is_shown_with_what_is_left_and_raised_by_a_retry(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, requests=2)
    assert not job_to_proto(await book.store.job(lease.job_id)).HasField("budget_use")
    await cell.reserve(lease, need(lease, "1", 0.5))
    (listed,), _ = await book.store.jobs(JobFilter(), Page(10))
    for view in (await book.store.job(lease.job_id), listed):
        shown = job_to_proto(view)
        assert shown.spec.policy.budget == pb.BudgetLimits(requests=2)
        assert shown.budget_use.left == pb.Spending(requests=1)
        assert shown.budget_use.reserved.requests == 1
    await cell.finish(lease, Outcome(JobState.FAILED, Failure("BUDGET_EXCEEDED", "It is spent.")))
    retries = Retries(book.engine, book.notifier)
    view = await retries.retry(lease.job_id, from_snapshot=False, budget=BudgetLimits(requests=3), key=None)
    assert view.spec.policy.budget == BudgetLimits(requests=3)
    again = await claimed(cell)
    answers = [(await cell.reserve(again, need(again, ask))).is_granted for ask in "123"]
    assert answers == [True, True, False]  # one was spent before


@pytest.mark.parametrize(
    ("budget", "floor", "expected"),
    [
        (None, BudgetLimits(cost_usd=5), BudgetLimits(cost_usd=5)),
        (BudgetLimits(tokens=9), BudgetLimits(cost_usd=5), BudgetLimits(cost_usd=5, tokens=9)),
        (BudgetLimits(cost_usd=2), BudgetLimits(cost_usd=5), BudgetLimits(cost_usd=2)),
        (BudgetLimits(cost_usd=2, allow_unknown_cost=True), BudgetLimits(cost_usd=5), BudgetLimits(cost_usd=2)),
        (BudgetLimits(cost_usd=6), BudgetLimits(cost_usd=5), "policy.budget.cost_usd must be at most 5"),
    ],
)
async def test_floors_bound_what_a_job_may_spend(
    book: Books, budget: BudgetLimits | None, floor: BudgetLimits, expected: BudgetLimits | str
) -> None:
    async with book.engine.begin() as connection:
        await connection.execute(update(projects).values(floor=Floor(budget=floor)))
    try:
        if isinstance(expected, str):
            with pytest.raises(Invalid, match=expected.replace(" ", ".*")):
                await book.admit(policy=Policy(budget=budget))
            return
        view = await book.admit(policy=Policy(budget=budget))
        assert view.spec.policy.budget == expected
        cell = await book.cell("cell")
        await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
        with pytest.raises(FailedPrecondition, match="must be at most 5"):
            await Retries(book.engine, book.notifier).retry(
                view.spec.job_id, from_snapshot=False, budget=BudgetLimits(cost_usd=7), key=None
            )
    finally:
        async with book.engine.begin() as connection:
            await connection.execute(update(projects).values(floor=Floor()))


@given(st.floats(0, 1e6))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_money_is_rounded_up_and_never_away(cost: float) -> None:
    assert cost - 1e-9 <= nanodollars(cost) / 1e9 <= cost + 2e-9


async def test_no_agent_makes_a_budget_uncountable(book: Books) -> None:
    """An agent chooses how much it asks for, and may leave before the answer, so that all of it counts."""
    await add_budget(book, limits=BudgetLimits(requests=1000))
    cell = await book.cell("cell")
    lease = await job(book, cell)
    for number in range(30):
        asked = need(lease, str(number), cost=6.6e8, tokens=1 << 60)
        assert (await cell.reserve(lease, asked)).is_granted
        if number % 2:
            await cell.settle(lease, used(asked, None, None))
    await cell.finish(lease, SUCCEEDED)
    other = await job(book, cell)
    asked = need(other, "1")
    assert (await cell.reserve(other, asked)).is_granted
    await cell.settle(other, used(asked))
    spent = (await books_of(book))["all", "default"]
    assert spent[2:] == (31, 0, 0, 0)
    assert spent[1] == 2**63 - 1
