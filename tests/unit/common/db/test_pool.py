"""A database's connections are given to callers in turn, and none is lost."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database
from services.common.db.pool import TurnsQueue
from services.common.turns import set_current_turns


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_database(database_url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def test_a_caller_with_a_hundred_transactions_makes_another_wait_for_few(engine: AsyncEngine) -> None:
    ended: list[str] = []

    async def ask(caller: str) -> None:
        set_current_turns(caller)
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
        ended.append(caller)

    async with asyncio.TaskGroup() as tasks:
        for caller in ["greedy"] * 100 + ["modest"] * 3:
            tasks.create_task(ask(caller))
    at_once = 12  # PostgreSQL's connections, which all take before anybody waits
    assert [number for number, caller in enumerate(ended) if caller == "modest"][-1] <= 3 * (at_once + 1)


async def test_cancelled_and_late_waiters_lose_no_connection() -> None:
    queue: TurnsQueue[int] = TurnsQueue(maxsize=2)
    moments = random.Random(11)
    served = 0

    async def use(caller: str) -> None:
        nonlocal served
        set_current_turns(caller)
        item = await queue.turn(None)
        try:
            await asyncio.sleep(0)
            served += 1
        finally:
            queue.put_nowait(item)

    for item in range(2):
        queue.put_nowait(item)
    tasks = []
    for number in range(300):
        tasks.append(asyncio.create_task(use("abc"[number % 3])))
        if moments.random() < 0.4:
            await asyncio.sleep(0)
        if moments.random() < 0.4:
            moments.choice(tasks).cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert queue.qsize() == 2
    assert served > 100
