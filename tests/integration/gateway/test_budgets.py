"""A job spends no more on models than its budgets let it, keeps its work when they end, and goes on with more."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.agent.providers import ModelWire
from services.agent.settings import AgentSettings, CommandEngine
from services.gateway.budgets.store import BudgetStore
from services.gateway.catalog.store import BUDGETS, WORKERS, CatalogStore
from services.gateway.jobs.retries import Retries
from services.gateway.values.budgets import Budget, BudgetPeriod, BudgetScope
from services.gateway.values.catalog import Worker
from services.gateway.values.jobs import JobView
from services.lifecycle.driver import Driver
from services.lifecycle.model.budgets import BudgetLimits, Spending
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import JobState, Publish
from services.lifecycle.nodes import Nodes
from tests.integration.gateway.test_asks import CALL, provider
from tests.integration.gateway.test_driver import admit, driving, ended
from tests.kit.ledger import Books
from tests.kit.model_provider import messages, providing, sse

WORK = f'for i in 1 2 3; do r=$({CALL}); echo "$i $r" >> work; test "$r" = "<200>" || {{ sleep 40; exit 1; }}; done'

TOKENS = 403
"""What each answer says that it used; more than is reserved for it."""


async def run(book: Books, nodes: Nodes, job_id: str) -> JobView:
    async with providing(messages()) as at:
        cell = await book.cell("cell")
        async with driving(Driver(cell, nodes, capacity=1, poll_seconds=0.02, own_providers=[provider(at)])):
            job = await ended(book, job_id)
        assert len(at.asked) == (job.budget_use.spent.requests if job.budget_use else 3)
    return job


async def work(book: Books, **limits: Any) -> str:
    return await admit(book, WORK, publish=Publish.NONE, budget=BudgetLimits(**limits))


async def test_a_budget_of_as_many_requests_as_are_needed_is_enough(book: Books, nodes: Nodes) -> None:
    job = await run(book, nodes, await work(book, requests=3))
    assert (job.state, job.reason) == (JobState.SUCCEEDED, "")
    assert job.budget_use is not None
    assert (job.budget_use.spent.requests, job.budget_use.reserved) == (3, Spending())
    assert job.budget_use.spent.tokens > 0
    assert job.budget_use.spent.cost_usd > 0


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_an_agent_that_hides_its_usage_or_hangs_up_before_spends_all_that_it_might(
    book: Books, nodes: Nodes, hangs_up: bool
) -> None:
    """Otherwise such requests would count as nothing, and there would be no end of them."""
    asked = {"model": "gpt-5.1", "stream": True, "max_completion_tokens": 100, "messages": []}
    asked |= {} if hangs_up else {"stream_options": {"include_usage": False}}
    call = (
        f"curl -sN -i -H \"authorization: Bearer $OPENAI_API_KEY\" -d '{json.dumps(asked)}'"
        " $OPENAI_BASE_URL/chat/completions > /tmp/answer & "
        f"{'until grep -qs data: /tmp/answer || grep -qs error /tmp/answer; do sleep 0.02; done; kill $!; ' * hangs_up}"
        "wait; head -c 12 /tmp/answer; echo; rm /tmp/answer"
    )
    reply = sse([("", {"id": "c", "choices": [{"delta": {"content": "Hello."}}]})] * 2)
    reply.gate = asyncio.Event() if hangs_up else None
    job_id = await admit(book, f"for i in 1 2 3 4; do {call}; done", budget=BudgetLimits(tokens=300))
    async with providing(reply) as at:
        ours = replace(provider(at), wire=ModelWire.CHAT)
        async with driving(Driver(await book.cell("cell"), nodes, capacity=1, poll_seconds=0.02, own_providers=[ours])):
            job = await ended(book, job_id)
    assert re.findall(rb"HTTP/1.1 (\d+)", job.executions[-1].output.log_tail) == [b"200", b"200", b"400", b"400"]
    assert (job.state, job.reason) == (JobState.FAILED, "BUDGET_EXCEEDED")
    assert job.budget_use is not None
    spent = job.budget_use.spent
    assert spent.requests == 2
    assert 200 < spent.tokens <= 300


LACKING = {
    "a job's requests": (None, {"requests": 2}),
    "a worker's tokens": (BudgetScope.WORKER, {"tokens": 2 * TOKENS}),
    "a project's dollars": (BudgetScope.PROJECT, {"cost_usd": 0.0022}),
}
"""Budgets of a day that have too little for the third request: in dollars, each may need 0.0011 and uses 0.0007."""


@pytest.mark.slow
@pytest.mark.parametrize("whose", LACKING)
async def test_a_smaller_one_ends_the_job_with_its_work_and_more_lets_it_go_on(
    book: Books, nodes: Nodes, whose: str
) -> None:
    scope, limits = LACKING[whose]
    catalog, time = CatalogStore(book.engine), datetime.now(UTC)
    await catalog.create(WORKERS, Worker(worker_id="ann", project_id="default", display_name="Ann", create_time=time))
    own = BudgetLimits(**(limits if scope is None else {"requests": 100}))
    agent = AgentSettings(engine=CommandEngine(line=WORK))
    policy = Policy(publish=Publish.NONE, budget=own)
    job_id = (await book.admit(agent=agent, worker_id="ann", policy=policy)).spec.job_id
    daily = Budget(
        budget_id="daily",
        project_id="default",
        scope=scope or BudgetScope.PROJECT,
        period=BudgetPeriod.DAY,
        limits=BudgetLimits(**(limits if scope else {"requests": 100})),
        create_time=time,
    )
    await catalog.create(BUDGETS, daily)
    job = await run(book, nodes, job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "BUDGET_EXCEEDED"), job.message
    assert job.budget_use is not None
    assert (job.budget_use.spent.requests, job.budget_use.reserved) == (2, Spending())
    assert job.executions[-1].output.snapshot_id
    assert "budget-100" in {stage.name for stage in job.timeline}
    await catalog.update(BUDGETS, "daily", lambda budget: replace(budget, limits=BudgetLimits(requests=100)))
    more = {"budget": BudgetLimits(requests=100), "key": None}
    await Retries(book.engine, book.notifier).retry(job_id, from_snapshot=False, **more)
    async with providing(messages()) as at:
        cell = await book.cell("cell")
        async with driving(Driver(cell, nodes, capacity=1, poll_seconds=0.02, own_providers=[provider(at)])):
            job = await ended(book, job_id)
    assert job.state is JobState.SUCCEEDED, job.message
    assert job.executions[-1].output.changes.files[0].additions == 6  # three lines of the first attempt are there
    uses = (await BudgetStore(book.engine).uses([daily]))["daily"]
    assert sum(use.spent.requests for use in uses) == 5
    assert all(use.reserved == Spending() for use in uses)
