"""The async engine of a service's database.

SQLite needs four things together, or concurrent transactions lose updates in silence (STYLE §4): no transactions of
the driver's own, BEGIN IMMEDIATE (the write lock is taken before the first read), WAL, and a wait for the lock. What
only reads a few rows has a connection of its own (`reading`).
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from services.common.db import one_trip
from services.common.db.outages import tell_outage
from services.common.db.pool import Pool
from services.common.db.room import LOG_BYTES, RoomyConnection
from services.common.errors import StartError

_SQLITE = "sqlite:///"
_LOCK_WAIT_MS = 20_000
_READERS_LOCK_WAIT_MS = 100  # the event loop waits; with WAL next to nothing makes it
_POSTGRESQL: dict[str, Any] = {
    # READ COMMITTED, PostgreSQL's default; pre-ping, so that after an outage the next transaction succeeds.
    "pool_pre_ping": True,
    # Transactions take milliseconds: 8 connections serve hundreds of them a second. PostgreSQL allows 100 connections
    # by default, and all cells share them.
    "pool_size": 8,
    "max_overflow": 4,
    # Seconds. Together with a new connection it stays below the 10 that callers wait, so that they are told why.
    "pool_timeout": 4,
}


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{path}"


def open_database(url: str, name: str = "boatyard", *, listen_url: str = "") -> AsyncEngine:
    """Open `sqlite:///path` or `postgresql://…`; dispose of the engine at the end. Connects at first use.

    `name` is the client's name in PostgreSQL's lists. With `listen_url`, a direct way to the same PostgreSQL on which
    notices are heard, `url` may lead to a pooler of transactions.

    Its use raises Unavailable (DATABASE_UNAVAILABLE) while the database is away, or does not answer for 8 s: see
    `bounded`. Transactions are `async with engine.begin() as connection:`, short, and never held during other waits.
    Raises StartError for any other URL. No error repeats the URL, which may hold a password, or a statement's values.
    """
    if url.startswith(("postgresql://", "postgres://")):
        return _open_postgres(url, name, listen_url)
    path = url.removeprefix(_SQLITE)
    if path == url or path in {"", ":memory:"}:
        raise StartError(f"a database is sqlite:///path or postgresql://…, not {_scheme(url)}")
    _make_private(Path(path))
    # One connection: BEGIN IMMEDIATE admits one transaction at a time, and SQLite lets the others poll, at intervals of
    # up to 100 ms: a hundred at once took many times as long as one after the other.
    engine = _open_sqlite(path, RoomyConnection)
    event.listen(engine.sync_engine, "connect", _set_up_writer)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    readers = _open_sqlite(path, one_trip.connect_in_place)
    event.listen(readers.sync_engine, "connect", _set_up_reader)
    event.listen(readers.sync_engine, "begin", _begin)
    return Database(engine.sync_engine, readers)


class Database(AsyncEngine):
    """SQLite's engine with that of its `readers`, which see what is committed and wait for nobody who writes."""

    def __init__(self, sync_engine: Engine, readers: AsyncEngine) -> None:
        super().__init__(sync_engine)
        self.readers = readers

    async def dispose(self, close: bool = True) -> None:
        """See AsyncEngine."""
        await self.readers.dispose(close)
        await super().dispose(close)


def reading(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
    """Begin a transaction that only reads a few rows by their keys, for what callers wait for.

    It sees all that was committed before it began. With SQLite it waits for nothing: neither for a transaction that
    writes, nor for a thread (decision 52). With PostgreSQL it is like any other.
    """
    return engine.readers.begin() if isinstance(engine, Database) else engine.begin()


def _make_private(path: Path) -> None:
    """Make the file if it is missing, readable by its owner only; SQLite's other files take over its mode."""
    if path.exists() and not path.is_file():
        raise StartError(f"the database {path} is not a file")
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise StartError(f"cannot make the database {path}: {error.strerror}") from error


def _open_sqlite(path: str, connect: Callable[..., one_trip.OneTripConnection]) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=path),
        hide_parameters=True,
        poolclass=Pool,
        connect_args={"async_creator_fn": connect},
        pool_size=1,
        max_overflow=0,
        pool_timeout=60,
    )
    event.listen(engine.sync_engine, "handle_error", tell_outage)
    event.listen(engine.sync_engine, "invalidate", _let_go)
    return engine


def _open_postgres(url: str, name: str, listen_url: str) -> AsyncEngine:
    from services.common.db.bounded import Connector  # noqa: PLC0415 - a driver that few services need
    from services.common.db.postgres import PostgresUrl, listen_at  # noqa: PLC0415 - likewise

    parsed, connector = PostgresUrl.parse(url, is_pooled=bool(listen_url)), Connector()
    engine = create_async_engine(
        parsed.shown,
        hide_parameters=True,
        poolclass=Pool,
        async_creator=lambda: connector.connect(**parsed.arguments(name)),
        **_POSTGRESQL,
    )
    event.listen(engine.sync_engine, "handle_error", tell_outage)
    listen_at(engine, PostgresUrl.parse(listen_url) if listen_url else parsed)
    return engine


def _scheme(url: str) -> str:
    scheme, colon, _ = url.partition(":")
    return f"{scheme}:" if colon and scheme.isidentifier() and len(scheme) < 32 else "that"


def _set_up_writer(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - SQLAlchemy's adapter
    _set_up(
        connection,
        "journal_mode=WAL",
        "synchronous=FULL",  # a commit that was answered survives the loss of power
        f"journal_size_limit={LOG_BYTES}",  # a log that a slow reader made grow gives its room back
        "foreign_keys=ON",
    )


def _set_up_reader(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - SQLAlchemy's adapter
    _set_up(connection, "query_only=ON", lock_wait_ms=_READERS_LOCK_WAIT_MS)


def _set_up(connection: Any, *pragmas: str, lock_wait_ms: int = _LOCK_WAIT_MS) -> None:  # noqa: ANN401 - SQLAlchemy's adapter
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={lock_wait_ms}", *pragmas):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _let_go(connection: Any, _entry: ConnectionPoolEntry, _error: BaseException | None) -> None:  # noqa: ANN401
    """Roll back the transaction of a cancelled task: closing alone does not, while a statement is unfinished.

    Without it the file stayed locked until the garbage collector ran (seen after about one in a hundred cancellations).
    """
    with suppress(Exception):  # it may be closed already, and is discarded in any case
        connection.rollback()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
