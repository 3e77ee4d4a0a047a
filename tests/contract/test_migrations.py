"""Data outlives the program that wrote it: migrations that have landed never change, and later ones only add."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import look, migrate
from services.common.db.paging import Page
from services.common.errors import StartError
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.values.jobs import JobFilter
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from tests.kit.contract import ROOT
from tests.kit.history import Histories, versions
from tests.kit.ledger import Books, claimed

LANDED = Path(__file__).with_name("landed_migrations.txt")
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/migrations"))
TABLES = {"execution": "executions", "gateway": "jobs", "git": "snapshots", "workspace": "workspaces"}
"""A table of each service."""
VALUES: dict[type, object] = {
    int: 7,
    bool: True,
    float: 7.5,
    bytes: b"7",
    dict: {"seven": 7},
    timedelta: timedelta(seconds=7),
    datetime: datetime(1970, 1, 1, 0, 0, 7),  # noqa: DTZ001 - SQLite has no time zones
}


@pytest.fixture
def histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Histories:
    return Histories(tmp_path, monkeypatch)


DATABASES = [*((service, "sqlite") for service in SERVICES), ("gateway", "postgres")]


@pytest.fixture(params=DATABASES, ids="-".join)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return each service's name with the URL of an empty database, for each kind of database that it may use."""
    service, kind = request.param
    return service, sqlite_url(tmp_path / "x.db") if kind == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def service(database: tuple[str, str]) -> str:
    return database[0]


@pytest.fixture
async def engine(database: tuple[str, str]) -> AsyncIterator[AsyncEngine]:
    engine = open_database(database[1])
    try:
        yield engine
    finally:
        await engine.dispose()


def test_a_landed_migration_never_changes() -> None:
    """Existing databases were made by it, so a change to it would never reach them."""
    landed = LANDED.read_text().splitlines()
    present = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}"
        for service in SERVICES
        for path in versions(service)
    ]
    paths = {line.split()[1] for line in landed}
    changed = [line.split()[1] for line in present if line not in landed and line.split()[1] in paths]
    gone = sorted(paths - {line.split()[1] for line in present})
    assert (changed, gone) == ([], []), (
        "put them back, and write what you need as a new version: services/common/db/migrate.py"
    )
    new = [line for line in present if line not in landed]
    assert new == [], f"if these are what you want for ever, add them to {LANDED.relative_to(ROOT)}"


def shapes(connection: Connection) -> dict[str, dict[str, tuple[str, bool, bool]]]:
    """Return for each column its type, whether it may be null, and whether an INSERT may leave it out."""
    inspector = inspect(connection)
    return {
        table: {
            each["name"]: (str(each["type"]), each["nullable"], each["nullable"] or each["default"] is not None)
            for each in inspector.get_columns(table)
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


async def test_each_version_only_adds(service: str, histories: Histories, engine: AsyncEngine) -> None:
    """A cell that has not been upgraded yet continues with the SQL of its own version."""
    before: dict[str, dict[str, tuple[str, bool, bool]]] = {}
    for path in versions(service):
        await migrate(engine, histories.until(service, path.name[1:5]))
        async with engine.connect() as connection:
            after = await connection.run_sync(shapes)
        for table, columns in before.items():
            assert columns.items() <= after.get(table, {}).items(), f"{path.name} takes from {table}, or changes it"
            new = {name: shape for name, shape in after[table].items() if name not in columns}
            needed = [name for name, (_, _, may_be_left_out) in new.items() if not may_be_left_out]
            assert needed == [], f"{path.name}: an older program's INSERT into {table} does not know these"
        before = after


def fill(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Add a row to each table, and return all rows by table."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if table.name not in {"alembic_version", "projects"}:
            row = {column.name: VALUES.get(column.type.python_type, "7") for column in table.columns}
            connection.execute(
                insert(table).values({**row, **({"project_id": "default"} if "project_id" in row else {})})
            )
    return rows(connection, metadata)


def rows(connection: Connection, metadata: MetaData) -> dict[str, list[dict[str, Any]]]:
    tables = [table for table in metadata.sorted_tables if table.name != "alembic_version"]
    return {table.name: [dict(row._mapping) for row in connection.execute(select(table))] for table in tables}


def older_versions() -> Iterator[Any]:
    """Yield each service's databases with each version before the newest; only the last but one is not marked slow."""
    for service, kind in DATABASES:
        for path in reversed(versions(service)[:-1]):
            marks = () if path == versions(service)[-2] else (pytest.mark.slow,)
            yield pytest.param((service, kind), path.name[1:5], id=f"{service}-{kind}-{path.name[1:5]}", marks=marks)


@pytest.mark.parametrize(("database", "version"), list(older_versions()), indirect=["database"])
async def test_what_an_older_version_kept_is_there_in_the_newest(
    service: str, version: str, histories: Histories, engine: AsyncEngine
) -> None:
    await migrate(engine, histories.until(service, version))
    async with engine.begin() as connection:
        before = await connection.run_sync(fill)
    await migrate(engine, f"services.{service}.migrations")
    metadata = MetaData()
    async with engine.connect() as connection:
        await connection.run_sync(metadata.reflect)
        after = await connection.run_sync(rows, metadata)
    for table, old_rows in before.items():
        new_rows = [{name: value for name, value in row.items() if name in old_rows[0]} for row in after[table]]
        assert new_rows == old_rows, table


async def test_a_database_of_an_unreleased_commit_is_refused(service: str, engine: AsyncEngine, tmp_path: Path) -> None:
    """The error says which database it is, how it differs, and what to do; the database is left as it was."""
    history = f"services.{service}.migrations"
    await migrate(engine, history)
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {TABLES[service]} ADD COLUMN dropped_since TEXT"))
        table = "tokens" if service == "gateway" else "fences"
        column = "name" if service == "gateway" else "number"
        await connection.execute(text(f"ALTER TABLE {table} RENAME COLUMN {column} TO label"))
    with pytest.raises(StartError) as caught:
        await migrate(engine, history)
    name = str(engine.url.database)
    assert f"the database {name}" in str(caught.value)
    assert f"the table {TABLES[service]} has a column dropped_since that it should not have" in str(caught.value)
    assert "has no column" in str(caught.value)
    assert "never released" in str(caught.value)
    assert len((await look(engine, history))[1]) == 3


async def test_an_upgrade_that_comes_to_something_else_is_taken_back(
    service: str, histories: Histories, engine: AsyncEngine
) -> None:
    """The previous version was made by an unreleased commit, which shows only after the next one has been tried."""
    history, table = f"services.{service}.migrations", TABLES[service]
    await migrate(engine, history)
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {table} ADD COLUMN dropped_since TEXT"))
    with pytest.raises(StartError, match="dropped_since"):
        await migrate(engine, histories.next(service, table))
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {table} ADD COLUMN whim TEXT"))
    with pytest.raises(StartError, match=r"cannot be upgraded from schema version \d{4} to \d{4}: .*whim"):
        await migrate(engine, histories.next(service, table))
    assert (await look(engine, history))[0] == versions(service)[-1].name[1:5]


async def test_a_database_of_a_newer_program_is_refused(
    service: str, histories: Histories, engine: AsyncEngine
) -> None:
    await migrate(engine, histories.next(service, TABLES[service]))
    newest = versions(service)[-1].name[1:5]
    with pytest.raises(StartError) as caught:
        await migrate(engine, f"services.{service}.migrations")
    assert f"{int(newest) + 1:04}, made by a newer Boatyard: this one knows versions up to {newest}" in str(
        caught.value
    )
    assert str(engine.url.database) in str(caught.value)
    version, (fault,) = await look(engine, f"services.{service}.migrations")
    assert (version, fault) == (f"{int(newest) + 1:04}", str(caught.value))


async def test_an_index_or_a_table_of_the_operators_own_is_no_fault(service: str, engine: AsyncEngine) -> None:
    await migrate(engine, f"services.{service}.migrations")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE others (id INTEGER)"))
        await connection.execute(text(f"CREATE INDEX mine ON {TABLES[service]} (create_time)"))
    await migrate(engine, f"services.{service}.migrations")


ROUNDS = 8
"""More than it takes until the database driver prepares a statement, whose plan the upgrade invalidates."""


async def run_jobs(book: Books, cell: SqlLedger, upgraded: asyncio.Event) -> None:
    """Run jobs as a driver does, until enough have been run after the upgrade."""
    rounds = 0
    while rounds < ROUNDS:
        rounds += upgraded.is_set()
        await book.admit()
        lease = await claimed(cell)
        await cell.begin_stage(lease, "agent")
        await cell.beat([lease])
        await cell.finish(lease, Outcome(JobState.SUCCEEDED))


@pytest.mark.slow
async def test_cells_of_the_version_before_go_on_while_one_is_upgraded_and_after(
    postgres_url: str, histories: Histories
) -> None:
    """A rolling upgrade: a new program changes the schema while old ones run jobs."""
    older, newer = open_database(postgres_url), open_database(postgres_url)
    next_history = histories.next("gateway", "jobs")
    upgraded = asyncio.Event()
    try:
        await migrate(older, "services.gateway.migrations")
        book = Books(older)
        cells = [await book.cell(name) for name in ("one", "two")]
        await book.admit("Begun before the upgrade, ended after it.")
        held = await claimed(cells[0])

        async def upgrade() -> None:
            await migrate(newer, next_history)
            upgraded.set()

        upgraded.set()
        await asyncio.gather(*(run_jobs(book, cell, upgraded) for cell in cells))
        upgraded.clear()
        await asyncio.gather(*(run_jobs(book, cell, upgraded) for cell in cells), upgrade())
        await cells[0].finish(held, Outcome(JobState.SUCCEEDED))
        views, _ = await book.store.jobs(JobFilter(), Page(1000))
        assert {view.state for view in views} == {JobState.SUCCEEDED}
        assert len(views) > 4 * ROUNDS
        with pytest.raises(
            StartError, match="made by a newer Boatyard"
        ):  # an old program must not be restarted after that
            await migrate(older, "services.gateway.migrations")
        await migrate(newer, next_history)
        async with newer.begin() as connection:
            whims = (await connection.execute(text("SELECT DISTINCT whim FROM jobs"))).scalars().all()
        assert whims == [""]
    finally:
        await older.dispose()
        await newer.dispose()
