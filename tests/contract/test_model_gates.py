"""Gates of models: who wants to be left alone is, by all executions of all cells; then projects take turns."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, select, update

from services.agent.providers import ModelWire
from services.gateway.catalog.store import PROJECTS, PROVIDERS, CatalogStore
from services.gateway.ledger import gates
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.gates import model_gate_turns, model_gates
from services.gateway.values.catalog import Project, Provider
from services.lifecycle.ledger import Lease
from services.lifecycle.model.budgets import BudgetLimits, GateState, Granting, ModelNeed, Settlement
from services.lifecycle.model.policy import Policy
from tests.contract.test_budgets import TIME, add_budget, books_of
from tests.kit.ledger import Books, claimed

SONNET = GateState(provider="one", key=1, model="sonnet")
SECOND_KEY = GateState(provider="one", key=2, model="sonnet")
HAIKU = GateState(provider="one", key=1, model="haiku")


async def add_project(book: Books, name: str) -> None:
    await CatalogStore(book.engine).create(PROJECTS, Project(project_id=name, create_time=TIME))


async def add_provider(book: Books, project: str = "", name: str = "one") -> None:
    of: dict[str, Any] = {"provider_id": name, "project_id": project, "wire": ModelWire.MESSAGES, "create_time": TIME}
    await CatalogStore(book.engine).create(PROVIDERS, Provider(base_url="https://models.example", **of))


async def job(book: Books, cell: SqlLedger, project: str = "default", **fields: Any) -> Lease:
    await book.admit(project_id=project, **fields)
    return await claimed(cell)


def need(lease: Lease, ask: str, *ways: GateState, reserved: bool = False) -> ModelNeed:
    execution_id = lease.execution_id
    common = {"tokens": 100, "cost_usd": 1.0, "model": "sonnet", "is_reserved": reserved}
    return ModelNeed(execution_id=execution_id, ask_id=ask, ways=ways or (SONNET,), **common)


async def told_to_wait(
    cell: SqlLedger, lease: Lease, seconds: float = 90.0, gate: GateState = SONNET, ask: str = "told"
) -> None:
    closed = GateState(provider=gate.provider, key=gate.key, model=gate.model, seconds=seconds)
    end = Settlement(execution_id=lease.execution_id, ask_id=ask, is_released=True, closed=(closed,))
    await cell.settle(lease, end)


async def answered(cell: SqlLedger, lease: Lease, ask: str) -> None:
    await cell.settle(lease, Settlement(execution_id=lease.execution_id, ask_id=ask, tokens=7, cost_usd=0.5))


async def pass_time(book: Books, seconds: float) -> None:
    """Move all that gates wait for into the past."""
    past = round(seconds * 1e6)
    columns = {name: model_gates.c[name] - past for name in ("open_time", "next_time")}
    async with book.engine.begin() as connection:
        await connection.execute(update(model_gates).values(columns))


async def rows(book: Books) -> int:
    async with book.engine.begin() as connection:
        found = [(await connection.execute(select(table))).all() for table in (model_gates, model_gate_turns)]
    return sum(map(len, found))


async def test_one_is_told_and_all_wait_on_every_cell(book: Books) -> None:
    await add_provider(book)
    here, there = await book.cell("here"), await book.cell("there")
    first, other = await job(book, here), await job(book, there)
    assert (await here.reserve(first, need(first, "1"))).is_granted
    await told_to_wait(here, first)
    for cell, lease in ((here, first), (there, other), (await book.cell("there"), other)):  # and after a restart
        waits = await cell.reserve(lease, need(lease, "2"))
        assert (waits.is_granted, waits.reason) == (False, "")
        assert 85 < waits.retry_seconds <= 90
        assert [(state.provider, state.key, state.model) for state in waits.closed] == [("one", 1, "sonnet")]
        assert "model provider one wants to be left alone" in waits.message
    assert (await there.reserve(other, need(other, "3", HAIKU))) == Granting(is_granted=True), "another model"
    by_key = await there.reserve(other, need(other, "4", SONNET, SECOND_KEY))
    assert by_key.is_granted
    assert [state.key for state in by_key.closed] == [1], "it has another key, and is told not to use the first"


async def test_the_longest_time_holds(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell)
    for seconds in (30.0, 90.0, 60.0):
        await told_to_wait(cell, lease, seconds)
    assert 85 < (await cell.reserve(lease, need(lease, "1"))).retry_seconds <= 90
    await told_to_wait(cell, lease, 0.0, HAIKU)  # read again by a driver that has restarted: it is over
    assert (await cell.reserve(lease, need(lease, "2", HAIKU))).is_granted


async def test_after_it_opens_one_tries_and_then_the_others_follow(book: Books) -> None:
    await add_provider(book)
    here, there = await book.cell("here"), await book.cell("there")
    first, other = await job(book, here), await job(book, there)
    await told_to_wait(here, first)
    await pass_time(book, 90)
    tries = await there.reserve(other, need(other, "tries"))
    assert (tries.is_granted, tries.is_turn) == (True, True)
    for number in range(5):
        waits = await here.reserve(first, need(first, str(number)))
        assert (waits.is_granted, 0 < waits.retry_seconds <= 1) == (False, True)
    await answered(there, other, "tries")
    passed = 0
    while await rows(book):
        passed += (await here.reserve(first, need(first, f"p{passed}"))).is_granted
        await pass_time(book, -10)
        assert not (await here.reserve(first, need(first, "at once"))).is_granted or not await rows(book), "paced"
        await pass_time(book, 12)
    assert 5 < passed < 40, "ever faster, until the gate is forgotten"
    assert (await there.reserve(other, need(other, "free"))) == Granting(is_granted=True)


async def test_who_tries_in_vain_closes_it_for_all_again(book: Books) -> None:
    await add_provider(book)
    cell = await book.cell("cell")
    lease, other = await job(book, cell), await job(book, cell)
    await told_to_wait(cell, lease)
    await pass_time(book, 90)
    assert (await cell.reserve(lease, need(lease, "tries"))).is_turn
    await told_to_wait(cell, lease, 60.0, ask="tries")
    assert 55 < (await cell.reserve(other, need(other, "1"))).retry_seconds <= 60


@pytest.mark.parametrize("is_released", [True, False])
async def test_one_that_tries_and_is_lost_holds_up_nobody_for_long(book: Books, is_released: bool) -> None:
    await add_provider(book)
    cell = await book.cell("cell")
    lease, other = await job(book, cell), await job(book, cell)
    await told_to_wait(cell, lease)
    await pass_time(book, 90)
    assert (await cell.reserve(lease, need(lease, "tries"))).is_turn
    if is_released:  # its agent went away: the next one tries
        lost = Settlement(execution_id=lease.execution_id, ask_id="tries", is_released=True)
        await cell.settle(lease, lost)
    else:
        assert not (await cell.reserve(other, need(other, "1"))).is_granted
        await pass_time(book, 15)
    assert (await cell.reserve(other, need(other, "1"))).is_granted


async def test_a_project_with_many_agents_does_not_hold_up_one_with_few(book: Books) -> None:
    await add_provider(book)
    await add_project(book, "small")
    cell = await book.cell("cell")
    leases = {"default": await job(book, cell), "small": await job(book, cell, "small")}
    await told_to_wait(cell, leases["default"])
    await pass_time(book, 90)
    asks = {f"default-{number}": "default" for number in range(12)} | {
        f"small-{number}": "small" for number in range(3)
    }
    granted: list[str] = []
    while asks and len(granted) < 7:
        for turn in (1 << 60, 0):  # first it is nobody's turn, and all look; then it is
            async with book.engine.begin() as connection:
                await connection.execute(update(model_gates).values(next_time=turn))
            for ask, project in list(asks.items()):
                if (await cell.reserve(leases[project], need(leases[project], ask))).is_granted:
                    granted.append(asks.pop(ask))
                    await answered(cell, leases[project], ask)
                    break
    assert Counter(granted) == {"default": 4, "small": 3}, "in turns, although the same come first every time"
    assert granted[1:] == ["small", "default"] * 3


async def test_who_waits_for_room_or_for_its_turn_is_told_at_once(book: Books) -> None:
    """Nobody polls for as long as a second: what ends wakes those who wait."""
    cell = await book.cell("cell", reserve_wait_seconds=20.0)
    await book.admit(policy=Policy(budget=BudgetLimits(requests=1)))
    lease = await claimed(cell)
    assert (await cell.reserve(lease, need(lease, "1", reserved=True))).is_granted
    waiting = asyncio.ensure_future(cell.reserve(lease, need(lease, "2", reserved=True)))
    await asyncio.sleep(0.05)
    freed = Settlement(execution_id=lease.execution_id, ask_id="1", is_released=True)
    await cell.settle(lease, freed)
    assert (await waiting).is_granted
    assert (await books_of(book))["", lease.job_id][-1] == 1


async def test_a_closed_gate_reserves_nothing(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell, policy=Policy(budget=BudgetLimits(requests=3)))
    await told_to_wait(cell, lease)
    assert not (await cell.reserve(lease, need(lease, "1", reserved=True))).is_granted
    assert set((await books_of(book)).values()) <= {(0, 0, 0, 0, 0, 0)}


@pytest.mark.parametrize("provider_of", ["", "default", "nobody"])
@pytest.mark.parametrize("by_coordinator", [False, True])
async def test_for_whom_a_gate_is_closed(book: Books, provider_of: str, by_coordinator: bool) -> None:
    """A shared provider's for all; its own for a project, and by a coordinator's word; what a machine has, for that."""
    await add_project(book, "small")
    if provider_of != "nobody":
        await add_provider(book, project=provider_of)
    here = await book.cell("here", is_of_coordinator=by_coordinator)
    there = await book.cell("there")
    first, same = await job(book, here), await job(book, there)
    other = await job(book, there, "small")
    beside = await job(book, here, "small")
    await told_to_wait(here, first)
    held = [
        not (await cell.reserve(lease, need(lease, "1"))).is_granted
        for cell, lease in ((here, first), (there, same), (there, other), (here, beside))
    ]
    wanted = {
        ("", False): [True, True, True, True],
        ("", True): [True, True, False, False],
        ("default", False): [True, True, False, False],
        ("default", True): [True, True, False, False],
        ("nobody", False): [True, False, False, True],
        ("nobody", True): [True, False, False, True],
    }
    assert held == wanted[provider_of, by_coordinator]


async def test_without_a_gate_an_ask_costs_one_statement_and_its_end_none_more(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(book.engine.sync_engine, "before_cursor_execute", note)
    try:
        assert (await cell.reserve(lease, need(lease, "1"))).is_granted
    finally:
        event.remove(book.engine.sync_engine, "before_cursor_execute", note)
    assert [each.split()[0] for each in statements if not each.startswith("BEGIN")] == ["SELECT"], statements


async def test_what_nobody_asks_for_any_more_is_forgotten(book: Books) -> None:
    cell = await book.cell("cell")
    lease = await job(book, cell)
    await told_to_wait(cell, lease)
    await pass_time(book, 90 + gates._FORGOTTEN / 1e6 + 1)
    await told_to_wait(cell, lease, gate=HAIKU)
    async with book.engine.begin() as connection:
        assert [row.model for row in (await connection.execute(select(model_gates))).all()] == ["haiku"]


async def test_of_those_who_ask_and_end_at_once_none_waits_for_one_that_waits_for_it(book: Books) -> None:
    """A deadlock would end one of the transactions, as if the database were away."""
    await add_provider(book)
    await add_provider(book, "default", name="zero")
    await add_budget(book, limits=BudgetLimits(requests=10_000))
    cell = await book.cell("cell")
    leases = [await job(book, cell) for _ in range(3)]
    ways = (SONNET, replace(SONNET, provider="zero"), HAIKU)
    closed = tuple(replace(way, seconds=0.001) for way in ways)

    async def work(lease: Lease) -> None:
        for number in range(5):
            asked = need(lease, str(number), *ways, reserved=True)
            end = Settlement(execution_id=lease.execution_id, ask_id=asked.ask_id, is_released=True, closed=closed)
            await cell.reserve(lease, asked)
            await cell.settle(lease, end)

    await asyncio.gather(*map(work, leases))


async def test_a_provider_that_is_asked_with_another_key_is_not_left_alone(book: Books) -> None:
    await add_provider(book)
    cell = await book.cell("cell")
    lease, store = await job(book, cell), CatalogStore(book.engine)
    await told_to_wait(cell, lease)
    await store.update(PROVIDERS, "one", lambda known: replace(known, order=1))
    assert not (await cell.reserve(lease, need(lease, "1"))).is_granted, "nothing that matters has changed"
    await store.update(PROVIDERS, "one", lambda known: replace(known, keys=("another",)))
    assert (await cell.reserve(lease, need(lease, "2"))).is_granted
    await told_to_wait(cell, lease)
    await store.delete(PROVIDERS, "one", TIME)
    assert await rows(book) == 0
    await told_to_wait(cell, lease)  # now as one that its machine alone knows
    await book.cell("other")
    assert not (await cell.reserve(lease, need(lease, "3"))).is_granted
    await book.cell("cell")
    assert (await cell.reserve(lease, need(lease, "4"))).is_granted, "started again, it may have other keys"
