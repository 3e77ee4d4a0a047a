"""Budgets hold for whomever they are, by whatever they limit, and over which of a job's attempts."""

from typing import Any

import pytest
from sqlalchemy import update

from services.gateway.catalog.store import WORKERS, CatalogStore
from services.gateway.schema.budgets import budgets
from services.gateway.values.budgets import BudgetPeriod, BudgetScope
from services.gateway.values.catalog import Worker
from services.lifecycle.model.budgets import BudgetLimits
from services.lifecycle.model.ids import agent_of
from services.lifecycle.model.outcome import Failure, ModelOutage, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import ExecutionState, Purpose
from tests.contract.test_budgets import TIME, add_budget, job, need, used
from tests.kit.ledger import Books, claimed, set_job

ENOUGH = {"requests": (3, 1), "tokens": (300, 1), "cost_usd": (0.21, 1e-9)}
"""What three requests of 100 tokens and 0.07 dollars need, and the least that is counted."""


@pytest.mark.parametrize("scope", [None, *BudgetScope])
async def test_what_three_requests_need_is_enough_for_them_and_the_least_less_is_not(
    book: Books, scope: BudgetScope | None
) -> None:
    """By whatever is limited, and whomever the budget is for; None is the job's own."""
    ann = Worker(worker_id="ann", project_id="default", display_name="Ann", create_time=TIME)
    await CatalogStore(book.engine).create(WORKERS, ann)
    cell, seen = await book.cell("cell"), {}
    await book.admit(worker_id="ann")
    lease = await claimed(cell)
    for lacking in (0, 1):
        for name, (enough, least) in ENOUGH.items():
            limits: dict[str, Any] = {name: round(enough - lacking * least, 9)}
            if scope is None:
                lease = await job(book, cell, **limits)
            else:
                values = {"scope": scope, "period": BudgetPeriod.DAY, "limits": BudgetLimits(**limits)}
                await add_budget(book, f"{name}-{lacking}", **values)
            answers = []
            for number in range(3):
                asked = need(lease, f"{name}-{lacking}-{number}", 0.07, 100)
                answers.append(await cell.reserve(lease, asked))
                await cell.settle(lease, used(asked, 0.07, 100))
            seen[name, lacking] = [answer.reason or answer.is_granted for answer in answers]
            async with book.engine.begin() as connection:
                await connection.execute(update(budgets).values(delete_time=TIME))
    ends = {0: [True, True, True], 1: [True, True, "BUDGET_EXCEEDED"]}
    assert seen == {(name, lacking): ends[lacking] for name in ENOUGH for lacking in ends}


@pytest.mark.parametrize("is_outage", [True, False])
async def test_a_budget_of_each_execution_is_whole_again_unless_its_model_was_away(
    book: Books, is_outage: bool
) -> None:
    """An outage uses up no attempt, so nothing else would bound what a job spends that meets one after the other."""
    await add_budget(
        book, "each", scope=BudgetScope.EXECUTION, period=BudgetPeriod.DAY, limits=BudgetLimits(requests=3)
    )
    cell = await book.cell("cell")
    lease, granted = await job(book, cell), []
    outage = ModelOutage("ours") if is_outage else None
    for rounds in (2, 1, 1):  # somebody had asked for changes in the first attempt; each begins with a first round
        for number in range(1, rounds + 1):
            agent = agent_of(lease.execution_id, number)
            await cell.note(lease, ExecutionNote(agent, Purpose.AGENT, ExecutionState.RUNNING))
        answers = [await cell.reserve(lease, need(lease, ask, execution=agent)) for ask in "12"]
        granted.append([answer.is_granted for answer in answers])
        await cell.settle(lease, used(need(lease, "1", execution=agent)))  # the other counts as all that it may need
        await cell.retry(lease, Retry(Failure("MODEL_UNAVAILABLE", "It is away."), 0, outage=outage))
        await set_job(book, lease.job_id, wake_time=0)
        lease = await claimed(cell)
    assert granted == ([[True, True], [True, False], [False, False]] if is_outage else [[True, True]] * 3)
