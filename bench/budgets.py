"""Reservations under one budget, against a bare table, on SQLite and PostgreSQL: 1, 8 and 100 agents at once.

Everything is measured in one run, in alternating rounds, so that the machine's other work affects both. An agent
reserves what a request may need and settles it, again and again; a rate is such pairs in a second. Ours is the ledger,
as a gateway's drivers call it: two transactions, which prove the lease of the job, find its budgets, and count each ask
once, whoever repeats it. The other is a row and two conditional UPDATEs by SQLAlchemy, which do nothing of that. The
books of both are compared with what was done.

Thousands of agents make about 100 requests a second together: a model takes its time for each. Wanted: that many.

    python -m bench.budgets SQLite --rounds 1 --agents 8
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Protocol

from sqlalchemy import BigInteger, Column, MetaData, String, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.kit.figures import at_least
from bench.kit.options import add_parts, options
from bench.queues import NEW_URLS, NewUrl
from services.common import logs
from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from services.common.errors import Unavailable
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.submission import JobSubmission
from services.gateway.jobs.wire import job_document
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.budgets import budget_use, budgets
from services.gateway.values.budgets import BudgetPeriod, BudgetScope
from services.lifecycle.ledger import Lease, LedgerUnavailable
from services.lifecycle.model.budgets import BudgetLimits, ModelNeed, Settlement

AIM = 100.0
TOKENS, COST_USD = 1_000, 0.01
PLENTY = 10**15


class Contender(Protocol):
    """Something that keeps one budget for many agents."""

    async def pair(self, agent: int, number: int) -> None:
        """Reserve for an agent's request, and settle it."""

    async def requests(self) -> int:
        """Return how many requests were counted; nothing is reserved any more."""


class Ours:
    """The ledger of a gateway, with a job for each agent."""

    def __init__(self, engine: AsyncEngine, ledger: SqlLedger, leases: list[Lease]) -> None:
        self._engine = engine
        self._ledger = ledger
        self._leases = leases

    async def pair(self, agent: int, number: int) -> None:
        lease, ask_id = self._leases[agent], str(number)
        need = ModelNeed(
            execution_id=lease.execution_id, ask_id=ask_id, tokens=TOKENS, cost_usd=COST_USD, model="big-1"
        )
        assert (await self._ledger.reserve(lease, need)).is_granted
        used = Settlement(execution_id=lease.execution_id, ask_id=ask_id, tokens=TOKENS // 2, cost_usd=COST_USD / 2)
        await self._ledger.settle(lease, used)

    async def requests(self) -> int:
        async with self._engine.begin() as connection:
            row = (await connection.execute(select(budget_use))).one()
        assert row.reserved_requests == 0
        return int(row.spent_requests)


@asynccontextmanager
async def ours(url: str, agents: int) -> AsyncIterator[Ours]:
    engine, notifier = open_database(url), JobNotifier()
    try:
        await migrate(engine, "services.gateway.migrations")
        ledger = SqlLedger(engine, "bench", notifier, job_document, lease_seconds=3600)
        await ledger.take_over_own("bench")
        await _add_budget(engine)
        leases = []
        for _ in range(agents):
            await Admission(engine, notifier, "true").admit(JobSubmission(project_id="default", prompt="Spend."), None)
            lease = await ledger.claim()
            assert lease is not None
            leases.append(lease)
        yield Ours(engine, ledger, leases)
    finally:
        await engine.dispose()


async def _add_budget(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            insert(budgets).values(
                budget_id="all",
                project_id="default",
                scope=BudgetScope.PROJECT,
                period=BudgetPeriod.DAY,
                limits=BudgetLimits(cost_usd=1e6, tokens=PLENTY, requests=PLENTY),
                create_time=datetime.now(UTC),
            )
        )


_table = Table(
    "budget",
    MetaData(),
    Column("scope", String(63), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in ("most", "spent", "reserved", "requests")),
)


class Bare:
    """A row for the budget, and two UPDATEs of it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def pair(self, agent: int, number: int) -> None:
        del agent, number
        row = _table.c
        taken = update(_table).where(row.scope == "all", row.spent + row.reserved + TOKENS <= row.most)
        async with self._engine.begin() as connection:
            done = await connection.execute(taken.values(reserved=row.reserved + TOKENS))
            assert done.rowcount == 1
        ended = {"reserved": row.reserved - TOKENS, "spent": row.spent + TOKENS // 2, "requests": row.requests + 1}
        async with self._engine.begin() as connection:
            await connection.execute(update(_table).where(row.scope == "all").values(ended))

    async def requests(self) -> int:
        async with self._engine.begin() as connection:
            row = (await connection.execute(select(_table))).one()
        assert row.reserved == 0
        return int(row.requests)


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Bare]:
    engine = open_database(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_table.metadata.create_all)
            await connection.execute(insert(_table).values(scope="all", most=PLENTY, spent=0, reserved=0, requests=0))
        yield Bare(engine)
    finally:
        await engine.dispose()


async def rate(contender: Contender, agents: int, seconds: float, numbers: "count[int]") -> tuple[float, int]:
    """Return pairs in a second, and how many pairs were made."""
    began = time.perf_counter()
    end = began + seconds

    async def agent(number: int) -> int:
        made = 0
        while time.perf_counter() < end:
            ask = next(numbers)
            while not await _has_made(contender, number, ask):  # a driver asks again too
                pass
            made += 1
        return made

    made = sum(await asyncio.gather(*(agent(number) for number in range(agents))))
    return made / (time.perf_counter() - began), made


async def _has_made(contender: Contender, agent: int, ask: int) -> bool:
    """Make a pair; False when the database was too busy to answer in time."""
    try:
        await contender.pair(agent, ask)
    except (LedgerUnavailable, Unavailable):
        return False
    return True


async def compare(database: str, new: NewUrl, wanted: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        contenders: dict[str, Contender] = {
            "ours": await stack.enter_async_context(ours(new("ours"), max(wanted.agents))),
            "bare": await stack.enter_async_context(bare(new("bare"))),
        }
        numbers, made = count(), dict.fromkeys(contenders, 0)
        for agents in wanted.agents:
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(wanted.rounds):
                for name, contender in contenders.items():
                    found, pairs = await rate(contender, agents, wanted.seconds, numbers)
                    rates[name].append(found)
                    made[name] += pairs
            mine, other = (statistics.median(rates[name]) for name in ("ours", "bare"))
            print(
                f"{database}: {agents} agents: {mine:.0f} reservations/s {at_least(mine, AIM)};"
                f" two bare UPDATEs {other:.0f}/s, ours / this {mine / other:.2f}",
                flush=True,
            )
        for name, contender in contenders.items():
            assert await contender.requests() == made[name], f"{name} has lost some of {made[name]} requests"


def main() -> None:
    parser = options(__doc__)
    add_parts(parser, NEW_URLS)
    parser.add_argument("--rounds", type=int, default=3, help="of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a round lasts")
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 8, 100])
    wanted = parser.parse_args()
    logs.configure("bench", "WARNING")
    for database in wanted.parts:
        with NEW_URLS[database]() as new:
            asyncio.run(compare(database, new, wanted))


if __name__ == "__main__":
    main()
