"""Connections to PostgreSQL on which every wait is bounded.

A server may hang without closing anything: it is stopped, its disk hangs, or the network drops packets. Three bounds
notice that, each what the others cannot: the server ends a statement that takes too long; we give up a connection on
which no answer comes; and TCP checks, on both sides, whether the other machine is still there.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")

# All in seconds. Callers wait for 10, and should be told why they fail: that is enough for a statement, or for a ping
# of a pooled connection that turns out to be dead, and a new connection.
_STATEMENT_SECONDS: Final = 7
_ANSWER_SECONDS: Final = 8.0
_PING_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 5
_UNHURRIED_SECONDS: Final = 3600.0
_SILENT_SECONDS: Final = 2.0

_SERVER: Final = {
    "statement_timeout": f"{_STATEMENT_SECONDS}s",
    # A process that is frozen (SIGSTOP, a hanging machine) in a transaction would keep its locks.
    "idle_in_transaction_session_timeout": "10s",
    # A machine that vanishes leaves its connections, of a hundred, with their locks: for two hours by the kernel's
    # defaults.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15s",
}
ON_SERVER: Final = " ".join(f"-c {name}={value}" for name, value in _SERVER.items())
"""The settings that the server applies to a connection, as `options`."""
CONNECTING: Final[dict[str, Any]] = {
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}
"""The arguments that every connection is made with."""


class BoundedConnection(psycopg.AsyncConnection[TupleRow]):
    """Closes itself when the server does not answer in time, and raises OperationalError."""

    answer_seconds: float = _ANSWER_SECONDS
    ping_seconds: float = _PING_SECONDS
    on_silence: Callable[[], None] | None = None

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ASYNC109 - psycopg's
        """See AsyncConnection, which every exchange with the server goes through."""
        # Outside of transactions we only ping the server, and listen.
        seconds = self.ping_seconds if self.autocommit else self.answer_seconds
        try:
            return await super().wait(gen, interval, seconds if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:  # it was answered, or is closed
                raise
            self.pgconn.finish()
            if self.on_silence is not None and not self.autocommit:
                self.on_silence()
            raise psycopg.OperationalError(f"the server has not answered for {seconds:g} s") from error


class Connector:
    """Connects, but fails at once for a moment after the server was silent.

    Otherwise a retry of the caller's, such as gRPC makes, would wait once more, and past the caller's deadline.
    """

    def __init__(self) -> None:
        self._silent_until = float("-inf")  # monotonic

    async def connect(self, *arguments: Any, **options: Any) -> BoundedConnection:  # noqa: ANN401 - psycopg's own
        """See AsyncConnection.connect."""
        if time.monotonic() < self._silent_until:
            raise psycopg.OperationalError("the server did not answer a moment ago")
        try:
            connection = await BoundedConnection.connect(*arguments, **options)
        except psycopg.errors.ConnectionTimeout:
            self._note_silence()
            raise
        connection.on_silence = self._note_silence
        return connection

    def _note_silence(self) -> None:
        self._silent_until = time.monotonic() + _SILENT_SECONDS


@asynccontextmanager
async def unhurried(connection: AsyncConnection) -> AsyncIterator[None]:
    """Let a transaction on PostgreSQL take up to an hour for a statement, such as a migration."""
    bounded = cast("BoundedConnection", (await connection.get_raw_connection()).driver_connection)
    bounded.answer_seconds = _UNHURRIED_SECONDS
    try:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        yield
    finally:
        del bounded.answer_seconds


@asynccontextmanager
async def outside_of_transactions(connection: AsyncConnection) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    """Give what executes statements of maintenance, which refuse to be in a transaction, and may take up to an hour."""
    bounded = cast("BoundedConnection", (await connection.get_raw_connection()).driver_connection)
    await bounded.set_autocommit(True)
    bounded.ping_seconds = _UNHURRIED_SECONDS
    try:
        await bounded.execute("SET statement_timeout = 0")
        yield bounded.execute
    finally:
        await connection.invalidate()  # its settings must not stay in the pool
