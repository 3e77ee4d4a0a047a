"""Both databases keep the promises of common/db: no lost update, one schema, stable pages, fences that only grow."""

import asyncio
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database
from services.common.db.fences import Fences
from services.common.db.migrate import look, migrate
from services.common.db.paging import Page
from services.common.errors import FailedPrecondition, Invalid, StartError
from services.common.fence import Fence
from tests.unit.common.db import migrations

MIGRATIONS = migrations.__name__
THINGS = migrations.things
FENCES = migrations.fences


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_database(database_url)
    await migrate(engine, MIGRATIONS)
    try:
        yield engine
    finally:
        await engine.dispose()


async def test_no_increment_of_fifty_at_once_is_lost(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(THINGS).values(id="counter", size=0))

    async def increment() -> None:
        async with engine.begin() as connection:
            row = select(THINGS.c.size).where(THINGS.c.id == "counter").with_for_update()
            size = (await connection.execute(row)).scalar_one()
            await connection.execute(update(THINGS).values(size=size + 1))

    await asyncio.gather(*(increment() for _ in range(50)))
    async with engine.connect() as connection:
        assert (await connection.execute(select(THINGS.c.size))).scalar_one() == 50


async def test_a_failed_transaction_leaves_nothing(engine: AsyncEngine) -> None:
    async def half() -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(THINGS).values(id="half", size=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await half()
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(THINGS))).scalar_one() == 0


async def test_cancelled_transactions_hold_nothing(engine: AsyncEngine) -> None:
    """Handlers are cancelled when clients leave, at any await of a transaction."""

    async def write(number: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(THINGS).values(id=f"a-{number}", size=1))
            await connection.execute(insert(THINGS).values(id=f"b-{number}", size=1))

    chance = random.Random(7)
    for _ in range(10):
        tasks = [asyncio.create_task(write(chance.randrange(2**60))) for _ in range(12)]
        for task in tasks:
            await asyncio.sleep(chance.random() * 0.004)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5):
        await write(-1)
        async with engine.connect() as connection:
            counted = select(func.count()).select_from(THINGS).where(THINGS.c.id.like("a-%"))
            halves = select(func.count()).select_from(THINGS).where(THINGS.c.id.like("b-%"))
            whole = (await connection.execute(counted)).scalar_one()
            assert whole == (await connection.execute(halves)).scalar_one()
    assert engine.pool.status().endswith("Current Checked out connections: 0")


async def test_migrations_make_what_the_metadata_says(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), migrations.metadata)
        )
    assert difference == []


async def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from services.common.db.engine import open_database\n"
        "from services.common.db.migrate import migrate\n"
        "async def main():\n"
        "    engine = open_database(sys.argv[1])\n"
        "    await migrate(engine, sys.argv[2])\n"
        "    await engine.dispose()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, database_url, MIGRATIONS) for _ in range(3)
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    engine = open_database(database_url)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    assert set(names) == {"alembic_version", "fences", "things"}


UNKNOWN_VERSIONS = {
    "9999": "newer Boatyard",
    "0099_of_a_later_kind": "newer Boatyard",
    "0100b": "newer Boatyard",
    "0000": "no released Boatyard made",
    "9f3ac01b2d4e": "another program's",
    "123456789012": "another program's",
    "initial": "another program's",
    "é": "another program's",
}


@pytest.mark.parametrize("version", UNKNOWN_VERSIONS)
async def test_a_version_that_is_not_known_is_refused_as_what_it_is(engine: AsyncEngine, version: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    with pytest.raises(StartError, match=UNKNOWN_VERSIONS[version]) as refused:
        await migrate(engine, MIGRATIONS)
    assert await look(engine, MIGRATIONS) == (version, [str(refused.value)]), "`cells` and the doctor say the same"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "secret", ""])
def test_other_databases_are_refused_without_repeating_the_url(url: str) -> None:
    with pytest.raises(StartError) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


async def test_sqlite_is_durable_and_waits(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/x.db")
    async with engine.connect() as connection:
        found = {}
        for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys"):
            found[name] = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("x.db*")} == {0o600}, "there are secrets in it"
    await engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 20_000, "foreign_keys": 1}


async def test_sqlites_log_gives_back_the_room_that_a_slow_reader_made_it_take(tmp_path: Path) -> None:
    engine, path = open_database(f"sqlite:///{tmp_path}/x.db"), tmp_path / "x.db-wal"

    async def write(*statements: str) -> None:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    await write("CREATE TABLE blobs (data BLOB)", "INSERT INTO blobs VALUES ('')")
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM blobs").fetchall()
        for size in range(3 << 20, (3 << 20) + 4):  # what stays the same is not written again
            await write(f"UPDATE blobs SET data = zeroblob({size})")
        assert path.stat().st_size > 12 << 20
    for number in range(3):
        await write(f"UPDATE blobs SET data = {number}")
    assert path.stat().st_size <= 5 << 20
    await engine.dispose()


@pytest.mark.parametrize("descending", [False, True])
async def test_pages_skip_and_double_nothing_while_rows_come_and_go(engine: AsyncEngine, descending: bool) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(THINGS), [{"id": f"t-{n:03}", "size": n // 10} for n in range(100)])
    seen: list[str] = []
    token = ""
    for number in range(99):
        page = Page.parse(7, token, {"state": "ACTIVE"})
        statement = page.select(select(THINGS), [THINGS.c.size, THINGS.c.id], descending=descending)
        async with engine.begin() as connection:
            found = (await connection.execute(statement)).all()
            rows, token = page.cut(found, lambda row: (row.size, row.id))
            if rows:  # what was shown may vanish; what sorts before may appear
                await connection.execute(THINGS.delete().where(THINGS.c.id == rows[-1].id))
                early = {"id": f"new-{number}", "size": 99 if descending else -1}
                await connection.execute(insert(THINGS).values(early))
        seen += [row.id for row in rows]
        if not token:
            break
    assert sorted(seen) == [f"t-{n:03}" for n in range(100)]
    assert seen == sorted(seen, reverse=descending)


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (1000, 1000), (5000, 1000)])
def test_page_sizes(asked: int, given: int) -> None:
    assert Page.parse(asked, "").size == given


def test_a_token_of_another_list_is_refused() -> None:
    page = Page.parse(1, "", {"state": "ACTIVE"})
    _, token = page.cut(["a", "b"], lambda row: (row,))
    for wrong in (token, "garbage", "Z2FyYmFnZQ==", "NQ==", "é"):
        with pytest.raises(Invalid) as caught:
            Page.parse(1, wrong, {"state": "ERROR"})
        assert [field for field, _ in caught.value.violations] == ["page_token"]
    assert Page.parse(1, token, {"state": "ACTIVE"}).after == ("a",)


@pytest.mark.parametrize(
    "key", [("x", "a"), (1, 1), (True, "a"), (1.5, "a"), (1,), (1, "a", "a"), (2**63, "a"), (1, "\0")]
)
def test_a_forged_token_is_refused_before_the_database_sees_it(key: tuple[str | int, ...]) -> None:
    _, token = Page.parse(1, "").cut(["a", "b"], lambda _: key)
    with pytest.raises(Invalid) as caught:
        Page.parse(1, token).select(select(THINGS), [THINGS.c.size, THINGS.c.id])
    assert [field for field, _ in caught.value.violations] == ["page_token"]


async def test_only_the_highest_fence_passes(engine: AsyncEngine) -> None:
    fences = Fences(engine, FENCES)
    await fences.check(None)
    for number in (3, 3, 5):
        await fences.check(Fence("job-1", number))
    await fences.check(Fence("job-2", 1))
    with pytest.raises(FailedPrecondition) as caught:
        await fences.check(Fence("job-1", 4))
    assert (caught.value.reason, caught.value.subject) == ("STALE_FENCE", "job-1")


async def test_of_many_fences_at_once_the_highest_stays(engine: AsyncEngine) -> None:
    fences = Fences(engine, FENCES)
    numbers = [7, 3, 20, 11, 19, 2, 13]
    await asyncio.gather(*(fences.check(Fence("job-1", number)) for number in numbers), return_exceptions=True)
    await fences.check(Fence("job-1", 20))
    with pytest.raises(FailedPrecondition):
        await fences.check(Fence("job-1", 19))


async def test_a_fence_is_forgotten_that_was_not_seen_for_long(engine: AsyncEngine) -> None:
    fences = Fences(engine, FENCES)
    await fences.check(Fence("old", 5))
    between = datetime.now(UTC)
    await fences.check(Fence("new", 5))
    assert await fences.forget(between) == 1
    await fences.check(Fence("old", 1))
    with pytest.raises(FailedPrecondition):
        await fences.check(Fence("new", 4))
    assert await fences.forget(between) == 0
