"""What models were used for is in rows that count each request once, stay, and are summed, on each kind of database."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent.usage import ModelUsageSum, UsageSum
from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from services.gateway.cost.model import CostQuery, Dimension
from services.gateway.cost.store import CostStore, count_some, remove_expired, usage_by_series
from services.gateway.jobs import retention
from services.gateway.metrics.store import GaugeStore
from services.gateway.metrics.usage import usage_metrics
from services.gateway.schema.metadata import MIGRATIONS
from services.gateway.schema.usage import model_usage
from services.gateway.values.jobs import LabelSelector
from services.lifecycle.ledger import Lease, Stage, StageEnd
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote, Output
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState
from tests.kit.coordinators import coordinator_api, remote_ledger
from tests.kit.history import Histories
from tests.kit.ledger import Books, claimed, expire_leases

DONE = Outcome(JobState.SUCCEEDED)
VALUES: dict[type, object] = {int: 7, bool: False, float: 7.5, bytes: b"7", dict: {}}
"""What columns of earlier versions have, by their types; texts have an x."""
TODAY = datetime.now(UTC).date()


def used(tokens: int, cost: float | None = 0.5, *, model: str = "big", day: date = TODAY) -> ModelUsageSum:
    """Make what two requests used, the price of one of which is not known."""
    sums = UsageSum(requests=2, unpriced_requests=1 if cost else 2, tokens=tokens, input_tokens=tokens, cost_usd=cost)
    return ModelUsageSum("acme", model, day.isoformat(), sums)


def note(lease: Lease, *usage: ModelUsageSum, **output: Any) -> ExecutionNote:
    """Make what a driver knows of its agent."""
    return ExecutionNote(lease.execution_id, Purpose.AGENT, output=Output(usage=usage, **output))


async def spent(book: Books, **query: Any) -> UsageSum:
    """Return the sum of all that a query finds."""
    return (await CostStore(book.engine).costs(CostQuery(**query))).total.usage


async def by(book: Books, *dimensions: Dimension, **query: Any) -> dict[Any, int]:
    """Return tokens by the values of dimensions, in the order of the groups."""
    found = await CostStore(book.engine).costs(CostQuery(group_by=dimensions, **query))
    assert found.total_groups >= len(found.groups)
    return {" ".join(group.key.values()): group.usage.tokens for group in found.groups}


async def test_each_request_counts_once_however_often_it_is_told(book: Books) -> None:
    """Told again, told with more, told as of another day, and told by an answer that was lost: what was last seen."""
    cell = await book.cell("one")
    await book.admit()
    lease = await claimed(cell)
    for rows in ([used(7)], [used(7)], [used(9), used(1, model="small")], [used(10, day=TODAY - timedelta(1))]):
        await cell.note(lease, note(lease, *rows))
        assert (await spent(book)).tokens == sum(row.usage.tokens for row in rows)
    ended = StageEnd(Stage("agent", StageState.DONE), [note(lease, used(20))])
    for _ in range(2):
        await cell.finish(lease, DONE, [ended])
    assert await spent(book) == used(20).usage


async def test_a_coordinators_driver_tells_the_same(book: Books) -> None:
    async with coordinator_api(book) as api, remote_ledger(api.address) as ledger:
        await book.admit()
        lease = await claimed(ledger)  # type: ignore[arg-type]
        for _ in range(2):
            await ledger.note(lease, note(lease, used(5), used(6, None, model="small")))
        await ledger.finish(lease, DONE)
    assert await spent(book) == used(5).usage + used(6, None).usage


async def test_of_a_lost_machine_counts_what_was_last_seen_and_of_each_attempt_its_own(book: Books) -> None:
    one, two = await book.cell("one"), await book.cell("two")
    await book.admit()
    lost = await claimed(one)
    await one.note(lost, replace(note(lost, used(7)), state=ExecutionState.RUNNING))
    await expire_leases(book)
    again = await claimed(two)
    await two.note(again, note(again, used(8)))
    await two.retry(again, Retry(Failure("AGENT_FAILED", ""), seconds=0))
    last = await claimed(two)
    await two.note(last, note(last, used(100)))
    await two.finish(last, DONE)
    assert (await spent(book)).tokens == 115
    assert list((await by(book, Dimension.JOB)).values()) == [115]
    view = await book.store.job(lost.job_id)
    assert [row.usage.tokens for each in view.executions for row in each.output.known_usage] == [7, 8, 100]


async def test_sums_by_everything_and_together(book: Books) -> None:
    cell = await book.cell("one")
    later = TODAY + timedelta(1)
    theirs = [used(3, 2.0), used(4, None, model="tiny")]
    for team, rows in {"harbour": theirs, "": [used(5, 3.0, day=later)]}.items():
        await book.admit(labels={"team": team} if team else {"other": "x"})
        lease = await claimed(cell)
        await cell.note(lease, note(lease, *rows))
        await cell.finish(lease, DONE)
    assert await by(book) == {}
    assert await by(book, Dimension.PROJECT) == {"default": 12}
    assert await by(book, Dimension.WORKER) == {"": 12}
    assert list((await by(book, Dimension.PROVIDER, Dimension.MODEL)).items()) == [("acme big", 8), ("acme tiny", 4)]
    assert list(await by(book, Dimension.DAY)) == [later.isoformat(), TODAY.isoformat()]
    assert await by(book, Dimension.LABEL, label_key="team") == {"": 5, "harbour": 7}
    assert len(await by(book, Dimension.JOB, max_groups=1)) == 1
    found = await CostStore(book.engine).costs(CostQuery(group_by=(Dimension.MODEL,)))
    assert [(group.usage.cost_usd, group.jobs) for group in found.groups] == [(5.0, 2), (None, 1)]
    assert (found.total.usage.cost_usd, found.total.usage.unpriced_requests, found.total.jobs) == (5.0, 4, 2)
    for tokens, query in (
        (12, {"visible": frozenset({"default"})}),
        (0, {"visible": frozenset()}),
        (0, {"project_id": "another"}),
        (4, {"model": "tiny"}),
        (0, {"provider": "other"}),
        (7, {"last_day": TODAY.isoformat()}),
        (5, {"first_day": later.isoformat()}),
        (7, {"labels": (LabelSelector(key="team", values=("harbour",)),)}),
        (5, {"labels": (LabelSelector(key="team", lacks=True),)}),
    ):
        assert (await spent(book, **query)).tokens == tokens, query
    assert await spent(book, provider="other") == UsageSum()


async def test_what_only_sums_are_known_of_is_of_no_known_model(book: Books) -> None:
    cell = await book.cell("one")
    for output in ({"tokens_used": 50, "turns": 3}, {"cost_usd": 1.5}, {"tokens_used": 0}, {}):
        await book.admit()
        lease = await claimed(cell)
        await cell.note(lease, note(lease, **output))
        await cell.finish(lease, DONE)
    assert await by(book, Dimension.MODEL) == {"": 50}
    total = await spent(book)
    assert (total.requests, total.unpriced_requests, total.cost_usd) == (4, 3, 1.5)


async def age(book: Books, lease: Lease, days: int) -> None:
    async with book.engine.begin() as connection:
        moved = update(model_usage).where(model_usage.c.execution_id == lease.execution_id)
        await connection.execute(moved.values(day=(TODAY - timedelta(days)).isoformat()))


async def test_sums_stay_when_their_jobs_go_and_counters_when_the_sums_go(book: Books) -> None:
    cell = await book.cell("one")
    for days, rows in ((0, [used(1)]), (40, [used(2), used(3, None, model="tiny")]), (41, [used(4)])):
        await book.admit(labels={"team": "harbour"})
        lease = await claimed(cell)
        await cell.note(lease, note(lease, *rows))
        await cell.finish(lease, DONE)
        await age(book, lease, days)
    async with book.engine.begin() as connection:
        ever = await usage_by_series(connection)
    assert {key[2]: usage.tokens for key, usage in ever.items()} == {"big": 7, "tiny": 3}
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in usage_metrics((await GaugeStore(book.engine, "one").read()).usage)
        for sample in metric.samples
    }
    assert samples["boatyard_usage_tokens_total", "default", "acme", "big", "input"] == 7
    assert samples["boatyard_usage_cost_dollars_total", "default", "acme", "big"] == 1.5
    assert samples["boatyard_usage_unpriced_requests_total", "default", "acme", "tiny"] == 2

    assert await retention.remove_expired(book.engine, -1) == 3
    assert await by(book, Dimension.LABEL, label_key="team") == {"harbour": 10}
    for settle in (count_some, count_some, count_some, remove_expired_ones, remove_expired_ones):
        await settle(book.engine)
        async with book.engine.begin() as connection:
            assert await usage_by_series(connection) == ever
    assert await spent(book) == used(1).usage
    assert await by(book, Dimension.LABEL, label_key="team") == {"harbour": 1}


async def test_what_runs_is_no_counter_yet(book: Books) -> None:
    """Its rows are still written in place of one another, whatever their day."""
    cell = await book.cell("one")
    await book.admit()
    lease = await claimed(cell)
    old = TODAY - timedelta(9)
    await cell.note(lease, replace(note(lease, used(1, day=old)), state=ExecutionState.RUNNING))
    assert await count_some(book.engine) == 0
    await cell.note(lease, replace(note(lease, used(2, day=old)), state=ExecutionState.SUCCEEDED))
    assert await count_some(book.engine) == 1
    await cell.note(lease, replace(note(lease, used(2, day=old)), state=ExecutionState.SUCCEEDED))
    await cell.finish(lease, DONE)
    async with book.engine.begin() as connection:
        assert list((await usage_by_series(connection)).values()) == [used(2).usage]


async def test_of_earlier_jobs_their_sums_are_taken_over(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded before there were rows of usage: sums of an execution, of no known model."""
    engine = open_database(database_url)
    history = Histories(tmp_path, monkeypatch)
    await migrate(engine, history.until("gateway", "0028"))
    async with engine.begin() as connection:
        before = MetaData()
        await connection.run_sync(before.reflect)
        jobs = before.tables["jobs"]
        row = {column.name: VALUES.get(column.type.python_type, "x") for column in jobs.columns}
        empty = {"worker_id": None, "work_item_id": None, "repository_id": None}
        await connection.execute(insert(jobs).values({**row, **empty, "job_id": "job-1", "project_id": "default"}))
        executions = before.tables["executions"]
        row = {column.name: VALUES.get(column.type.python_type, "x") for column in executions.columns}
        for number, (purpose, output) in enumerate(
            (
                ("AGENT", {"tokens_used": 70, "cost_usd": 0.25, "turns": 3}),
                ("AGENT", {"tokens_used": 5, "cost_usd": None}),
                ("AGENT", {"tokens_used": None}),
                ("AGENT", {}),
                ("VERIFY", {"tokens_used": 9}),
            )
        ):
            known = {"execution_id": f"exec-{number}", "job_id": "job-1", "purpose": purpose}
            known["output"] = json.dumps(output)
            await connection.execute(insert(executions).values({**row, **known}))
    await migrate(engine, MIGRATIONS)
    costs = await CostStore(engine).costs(CostQuery(group_by=(Dimension.MODEL, Dimension.DAY, Dimension.JOB)))
    (group,) = costs.groups
    assert list(group.key.values()) == ["", "1970-01-01", "job-1"]
    assert group.usage == UsageSum(requests=4, unpriced_requests=1, tokens=75, cost_usd=0.25)
    await engine.dispose()


async def remove_expired_ones(engine: AsyncEngine) -> int:
    return await remove_expired(engine, 30)
