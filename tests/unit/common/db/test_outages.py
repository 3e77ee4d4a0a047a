"""A database that cannot be used for now is told apart from a statement that is wrong, whichever database it is."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db import engine as engines
from services.common.db.engine import open_database
from services.common.errors import Unavailable
from services.common.room import is_out_of_room
from tests.kit.disks import fill, needs_mount, small_disk, use_up_inodes
from tests.kit.postgres import OwnPostgres


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_database(database_url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def run(engine: AsyncEngine, *steps: str | Callable[[], None]) -> None:
    """Do all in one transaction: statements, and what happens between them."""
    async with engine.begin() as connection:
        for step in steps:
            if callable(step):
                step()
            else:
                await connection.execute(text(step))


async def test_a_wrong_statement_is_no_outage(engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError):
        await run(engine, "SELECT nothing FROM nowhere")


async def test_a_full_disk_is_an_outage_that_passes(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/full.db")
    try:
        await run(engine, "CREATE TABLE things (data BLOB)")
        with pytest.raises(Unavailable) as caught:  # SQLite's own way to have no more room
            await run(engine, "PRAGMA max_page_count = 4", "INSERT INTO things VALUES (zeroblob(1 << 20))")
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert is_out_of_room(caught.value)
        await engine.dispose()
        await run(engine, "INSERT INTO things VALUES (zeroblob(1 << 20))")
    finally:
        await engine.dispose()


@needs_mount
@pytest.mark.parametrize("what", ["bytes", "inodes"])
async def test_a_database_on_a_full_disk_goes_on_when_there_is_room(what: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size="2m", inodes=20) as disk:
        engine = open_database(f"sqlite:///{disk}/some.db")
        try:
            await run(engine, "CREATE TABLE things (data BLOB)", "INSERT INTO things VALUES ('kept')")
            if what == "inodes":
                await engine.dispose()  # whoever opens it again needs files beside it
            ballast = fill(disk) if what == "bytes" else use_up_inodes(disk)
            for _ in range(3):
                with pytest.raises(Unavailable) as caught:
                    await run(engine, "INSERT INTO things VALUES (zeroblob(1 << 19))")
                assert is_out_of_room(caught.value)
            shutil.rmtree(ballast) if what == "inodes" else ballast.unlink()
            await run(engine, "INSERT INTO things VALUES (zeroblob(1 << 16))")
            async with engine.begin() as connection:
                assert (await connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 2
        finally:
            await engine.dispose()


@pytest.mark.parametrize(
    "statement", ["INSERT INTO things VALUES (1)", "CREATE TABLE more ()", "SELECT nextval('numbers')"]
)
async def test_a_server_that_only_reads_is_an_outage_and_the_next_connection_may_find_one_that_writes(
    postgres_url: str, statement: str
) -> None:
    engine = open_database(postgres_url)
    try:
        await run(engine, "CREATE TABLE things (number INTEGER)", "CREATE SEQUENCE numbers")
        # All that a connection sees of it when the server behind it has become a standby.
        await run(engine, "SET default_transaction_read_only = on")
        await run(engine, "SELECT * FROM things")
        with pytest.raises(Unavailable) as caught:
            await run(engine, "SELECT 1", statement)
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert not is_out_of_room(caught.value)
        await run(engine, statement)
    finally:
        await engine.dispose()


async def test_a_server_that_was_away_is_used_again(own_postgres: OwnPostgres) -> None:
    engine = open_database(own_postgres.url)
    try:
        await run(engine, "SELECT 1")
        with pytest.raises(Unavailable):  # in mid transaction
            await run(engine, "SELECT 1", own_postgres.stop, "SELECT 2")
        with pytest.raises(Unavailable):  # on connecting
            await run(engine, "SELECT 3")
        own_postgres.start()
        await run(engine, "SELECT 4")
    finally:
        await engine.dispose()


async def test_a_database_that_has_more_to_do_than_it_can_is_an_outage_too(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("pool_size", 1), ("max_overflow", 0), ("pool_timeout", 0.05)):
        monkeypatch.setitem(engines._POSTGRESQL, name, value)
    engine = open_database(postgres_url)
    try:
        async with engine.begin():
            with pytest.raises(Unavailable) as caught:
                await run(engine, "SELECT 1")
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        await run(engine, "SELECT 1")
    finally:
        await engine.dispose()


async def test_who_stands_still_in_a_transaction_keeps_its_locks_for_seconds_only(postgres_url: str) -> None:
    engine = open_database(postgres_url)
    try:
        async with engine.begin() as connection:
            shown = await connection.execute(text("SHOW idle_in_transaction_session_timeout"))
            assert shown.scalar_one() == "10s"
    finally:
        await engine.dispose()
