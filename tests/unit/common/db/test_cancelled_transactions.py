"""A call that is cut short in the middle of a transaction, as every gRPC call may be, leaves the database usable."""

import asyncio
import random

import pytest
from sqlalchemy import text

from services.common.db.engine import open_database


@pytest.mark.slow
async def test_a_cancelled_transaction_leaves_no_lock(database_url: str) -> None:
    engine = open_database(database_url)
    moments = random.Random(7)  # the same moments every time

    async def count() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE counted SET n = n + 1"))
            await connection.execute(text("SELECT * FROM counted"))

    try:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE counted (n INTEGER)"))
            await connection.execute(text("INSERT INTO counted VALUES (0)"))
        for _ in range(100):
            tasks = [asyncio.create_task(count()) for _ in range(3)]
            await asyncio.sleep(moments.random() * 0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(10):
                await count()
    finally:
        await engine.dispose()
