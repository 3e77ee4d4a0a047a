"""Transactions of SQLite that only read a few rows: they see what is committed, and wait for nobody."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database, reading, sqlite_url
from services.common.errors import Unavailable


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_database(sqlite_url(tmp_path / "db"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE words (word TEXT)"))
        await connection.execute(text("INSERT INTO words VALUES ('first')"))
    yield engine
    await engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == ["db"], "the last of all connections has tidied up"


async def words(engine: AsyncEngine) -> list[str]:
    async with reading(engine) as connection:
        return list((await connection.execute(text("SELECT word FROM words"))).scalars())


async def test_it_waits_for_no_transaction_that_writes_and_sees_what_is_committed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO words VALUES ('second')"))
        async with asyncio.timeout(10):
            assert await words(engine) == ["first"]
    assert await words(engine) == ["first", "second"]


async def test_many_read_at_once_while_many_write(engine: AsyncEngine) -> None:
    async def write(number: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": str(number)})
        assert str(number) in await words(engine)

    await asyncio.gather(*(write(number) for number in range(50)), *(words(engine) for _ in range(50)))
    assert len(await words(engine)) == 51


async def test_it_writes_nothing(engine: AsyncEngine) -> None:
    async with reading(engine) as connection:
        with pytest.raises(Unavailable):  # SQLite: attempt to write a readonly database
            await connection.execute(text("INSERT INTO words VALUES ('third')"))
    assert await words(engine) == ["first"]


async def test_a_reader_that_is_cancelled_leaves_the_connection_to_the_next(engine: AsyncEngine) -> None:
    begun = asyncio.Event()

    async def stay() -> None:
        async with reading(engine) as connection:
            await connection.execute(text("SELECT word FROM words"))
            begun.set()
            await asyncio.Event().wait()

    staying = asyncio.create_task(stay())
    await begun.wait()
    staying.cancel()
    await asyncio.gather(staying, return_exceptions=True)
    async with asyncio.timeout(10):
        assert await words(engine) == ["first"]
