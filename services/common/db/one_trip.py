"""SQLite's connection, with one trip to its thread for a statement and its rows, where aiosqlite makes four.

Every trip ends with a turn of the event loop. While somebody floods a service its turns are long, and a transaction
holds the only connection for all of its trips (decision 52).
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self, TypeVar

import aiosqlite

_FIRST_ROWS: Final = 32
"""How many rows are read in the trip that executes: those of most queries, and few of what is streamed."""

Result = TypeVar("Result")


def connect(path: str, **options: Any) -> "OneTripConnection":  # noqa: ANN401 - sqlite3's own
    """Return a connection that opens when it is awaited; `options` are sqlite3.connect's."""
    return OneTripConnection(lambda: sqlite3.connect(path, **options), iter_chunk_size=64)


def connect_in_place(path: str, **options: Any) -> "InPlaceConnection":  # noqa: ANN401 - sqlite3's own
    """Return a connection as `connect` does, for what takes microseconds: it has no trip at all."""
    return InPlaceConnection(
        lambda: sqlite3.connect(path, **{**options, "check_same_thread": False}), iter_chunk_size=64
    )


class OneTripConnection(aiosqlite.Connection):
    """A connection whose cursors are ours. Its thread does not keep the process from ending."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], iter_chunk_size: int) -> None:
        super().__init__(connector, iter_chunk_size)
        self._thread.daemon = True

    def cursor(self) -> "OneTripCursor":  # type: ignore[override]
        """Return a cursor, as far as SQLAlchemy needs one."""
        return OneTripCursor(self)

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Work with SQLite's own connection in its thread."""
        result: Result = await self._execute(lambda: work(self._conn))  # type: ignore[no-untyped-call]
        return result


class InPlaceConnection(OneTripConnection):
    """A connection that works in the event loop, and not in a thread of its own, once it is open."""

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - aiosqlite's
        return fn(*args, **kwargs)


class OneTripCursor:
    """A cursor: what `execute` has read is there for whoever fetches it, without a trip."""

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._unread: sqlite3.Cursor | None = None
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        """Execute a statement, and read its first rows."""
        await self._run(lambda cursor: cursor.execute(statement, parameters))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Execute a statement for each of many parameters."""
        await self._run(lambda cursor: cursor.executemany(statement, parameters))
        return self

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        rows, self._rows = self._rows, []
        unread, self._unread = self._unread, None
        if unread is not None:
            rows += await self._connection.run(lambda _: _read(unread, -1)[0])
        return rows

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return so many of the rows that are left, or fewer at the end."""
        size = size or self.arraysize
        missing, unread = size - len(self._rows), self._unread
        if missing > 0 and unread is not None:
            more, self._unread = await self._connection.run(lambda _: _read(unread, missing))
            self._rows += more
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    async def fetchone(self) -> Any | None:  # noqa: ANN401 - a row
        """Return the next row; None when there is none."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Let go of the rows that are left."""
        self._rows = []
        unread, self._unread = self._unread, None
        if unread is not None:
            await self._connection.run(lambda _: unread.close())

    async def _run(self, execute: Callable[[sqlite3.Cursor], object]) -> None:
        await self.close()

        def work(connection: sqlite3.Connection) -> tuple[Any, ...]:
            cursor = connection.cursor()
            try:
                execute(cursor)
                rows, unread = _read(cursor, _FIRST_ROWS) if cursor.description else ([], None)
            except BaseException:
                cursor.close()
                raise
            facts = cursor.description, cursor.rowcount, cursor.lastrowid
            if unread is None:
                cursor.close()
            return rows, unread, *facts

        self._rows, self._unread, self.description, self.rowcount, self.lastrowid = await self._connection.run(work)


def _read(cursor: sqlite3.Cursor, count: int) -> tuple[list[Any], sqlite3.Cursor | None]:
    """Read so many rows, or all (-1); return them, and the cursor when there may be more."""
    rows = cursor.fetchall() if count < 0 else cursor.fetchmany(count)
    return rows, cursor if 0 <= count == len(rows) else None
