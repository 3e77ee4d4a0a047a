"""A PostgreSQL that stands still, every connection open: whoever asks is told in time, and all goes on after it."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from services.common.db import bounded, pg_notify
from services.common.db import engine as engines
from services.common.db.bounded import BoundedConnection, unhurried
from services.common.db.engine import open_database
from services.common.db.pg_notify import notifications, notify
from services.common.errors import Unavailable
from services.common.rpc.channel import UNARY_DEADLINE_SECONDS
from tests.kit.postgres import OwnPostgres

SOON = 60.0
"""Much more than any bound, and much less than for ever."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience than in life, and still enough for a machine that has much to do."""
    monkeypatch.setattr(BoundedConnection, "answer_seconds", 2.0)
    monkeypatch.setattr(bounded, "_SILENT_SECONDS", 0.5)
    monkeypatch.setitem(bounded.CONNECTING, "connect_timeout", 2)
    monkeypatch.setattr(pg_notify, "_PROBE_SECONDS", 0.2)


@pytest.fixture
async def engine(own_postgres: OwnPostgres) -> AsyncIterator[AsyncEngine]:
    engine = open_database(own_postgres.url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def run(engine: AsyncEngine, *steps: str | Callable[[], object]) -> None:
    """Do all in one transaction: statements, and what happens between them."""
    async with asyncio.timeout(SOON), engine.begin() as connection:
        for step in steps:
            done = step() if callable(step) else connection.execute(text(step))
            if inspect.isawaitable(done):
                await done


async def until_it_is_back(engine: AsyncEngine) -> None:
    async with asyncio.timeout(SOON):
        while True:
            try:
                return await run(engine, "SELECT 1")
            except Unavailable:
                await asyncio.sleep(0.1)


def in_use(engine: AsyncEngine) -> int:
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


@pytest.mark.slow
async def test_whoever_asks_a_server_that_hangs_is_told_and_all_goes_on_after_it(
    engine: AsyncEngine, own_postgres: OwnPostgres
) -> None:
    await asyncio.gather(*(run(engine, "SELECT pg_sleep(0.1)") for _ in range(4)))  # some connections are there
    stands, goes = asyncio.Event(), asyncio.Event()
    in_transaction = asyncio.create_task(run(engine, "SELECT 1", stands.set, goes.wait, "SELECT 2"))
    await stands.wait()
    with own_postgres.hanging():
        goes.set()
        # On connections that were there, on new ones, and on none that is free.
        more = [run(engine, "SELECT 3") for _ in range(20)]
        told = await asyncio.gather(in_transaction, *more, return_exceptions=True)
        cut_short = asyncio.create_task(run(engine, "SELECT 4"))
        await asyncio.sleep(0.6)  # it tries to connect
        cut_short.cancel()
        await asyncio.wait([cut_short], timeout=SOON)
        assert cut_short.done()
    assert [getattr(error, "reason", error) for error in told] == ["DATABASE_UNAVAILABLE"] * len(told)
    await until_it_is_back(engine)
    assert in_use(engine) == 0, "no connection is lost to the pool"


@pytest.mark.slow
async def test_whoever_listens_hears_again_after_it(engine: AsyncEngine, own_postgres: OwnPostgres) -> None:
    words = notifications(engine, "things")
    async with asyncio.timeout(SOON):
        assert await anext(words) is None
        with own_postgres.hanging():
            again = asyncio.ensure_future(anext(words))
            await asyncio.wait([again], timeout=bounded._PING_SECONDS + 1)  # it asks, and gets no answer
        assert await again is None, "something may have been missed"
        await until_it_is_back(engine)
        await notify(engine, "things", "done")
        while (word := await anext(words)) is None:
            pass
    assert word == "done"
    await words.aclose()


@pytest.mark.slow
async def test_the_server_ends_what_takes_too_long_but_for_what_may(postgres_url: str) -> None:
    async def shown(connection: AsyncConnection) -> str:
        return str((await connection.execute(text("SHOW statement_timeout"))).scalar_one())

    engine = open_database(postgres_url)
    try:
        async with engine.begin() as connection, unhurried(connection):
            assert await shown(connection) == "0"
            await connection.execute(text("SELECT pg_sleep(2.2)"))  # longer than we would wait for an answer
        async with engine.begin() as connection:
            assert await shown(connection) == f"{bounded._STATEMENT_SECONDS}s"
        with pytest.raises(Unavailable):
            await run(engine, "SET LOCAL statement_timeout = 50", "SELECT pg_sleep(60)")
        await run(engine, "SELECT 1")
    finally:
        await engine.dispose()


def test_the_bounds_leave_callers_the_time_to_be_told() -> None:
    assert bounded._STATEMENT_SECONDS < bounded._ANSWER_SECONDS < UNARY_DEADLINE_SECONDS
    connect = bounded._CONNECT_SECONDS
    assert max(bounded._PING_SECONDS, engines._POSTGRESQL["pool_timeout"]) + connect < UNARY_DEADLINE_SECONDS
