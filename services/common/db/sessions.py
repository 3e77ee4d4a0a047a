"""Finds out, before a PostgreSQL is used, what would go wrong there without any error."""

import asyncio
import secrets
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.bounded import BoundedConnection
from services.common.db.pg_notify import notifications, notify
from services.common.db.postgres import PostgresUrl, listening_arguments
from services.common.errors import StartError, Unavailable

_LOOKS: Final = 10
_HEARD_SECONDS: Final = 10.0
# What the server must end by itself behind a pooler, whose connections we may not set anything for.
_BOUNDS: Final = {"statement_timeout": "7s", "idle_in_transaction_session_timeout": "10s"}
# What neither a connection's start has set, nor a pooler in its place.
_NOT_OF_CLIENT: Final = "SELECT lower(name) FROM pg_settings WHERE source NOT IN ('client', 'session')"


async def check_sessions(engine: AsyncEngine, url: str, *, is_pooled: bool) -> None:
    """Raise StartError unless connections are what they seem: one session each, as the URL says, and with notices.

    With `is_pooled`, the connections at `url` may be a pooler's, and only those for notices have to be sessions.
    """
    async with engine.begin() as connection:
        schema = (await connection.execute(text("SELECT current_schema()"))).scalar()
        user, path = (await connection.execute(text("SELECT current_user, current_setting('search_path')"))).one()
        bounds = {
            name: (await connection.execute(text("SELECT current_setting(:name)"), {"name": name})).scalar()
            for name in _BOUNDS
        }
        not_of_client = set((await connection.execute(text(_NOT_OF_CLIENT))).scalars())
    if schema is None:
        raise StartError(
            f"the database has no schema of its search_path ({path}): CREATE SCHEMA, or another search_path"
        )
    wanted = PostgresUrl.parse(url)
    if ignored := sorted(wanted.option_names & not_of_client):
        settings = "; ".join(f'ALTER ROLE "{user}" SET {name} = …' for name in ignored)
        raise StartError(f"a pooler ignores what the URL has in `options`; set it for the role instead: {settings}")
    unbounded = [name for name, value in bounds.items() if is_pooled and value == "0"]
    if unbounded:
        settings = "; ".join(f"ALTER ROLE \"{user}\" SET {name} = '{_BOUNDS[name]}'" for name in unbounded)
        raise StartError(f"behind a pooler the database itself has to end what hangs: {settings}")
    arguments = listening_arguments(engine) if is_pooled else wanted.arguments("boatyard")
    try:
        is_shared = await _is_shared(arguments)
    except psycopg.Error as error:
        setting = "BOATYARD_DATABASE_LISTEN_URL" if is_pooled else "BOATYARD_DATABASE_URL"
        raise StartError(f"{setting} cannot be used: {' '.join(str(error).split())}") from error
    if is_shared:
        raise StartError(
            "a pooler gives each transaction another connection, so that no notice would be heard: name a direct URL of"
            " the same database in BOATYARD_DATABASE_LISTEN_URL, or leave out the pooler"
        )
    await _check_notices(engine)


async def _is_shared(arguments: dict[str, Any]) -> bool:
    """True when two connections have, or one has after the other, the same process of the server."""
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            connection = await BoundedConnection.connect(autocommit=True, **arguments | {"prepare_threshold": None})
            stack.push_async_callback(connection.close)
            connections.append(connection)
        looks = [tuple([await _process_of(each) for each in connections]) for _ in range(_LOOKS)]
    return any(look != looks[0] or look[0] == look[1] for look in looks)


async def _process_of(connection: BoundedConnection) -> object:
    return await (await connection.execute("SELECT pg_backend_pid()")).fetchone()


async def _check_notices(engine: AsyncEngine) -> None:
    """Raise StartError unless a notice that is sent on the one way is heard on the other."""
    word = secrets.token_hex(8)
    channel = f"boatyard_check_{word}"
    try:
        async with asyncio.timeout(_HEARD_SECONDS), aclosing(notifications(engine, channel)) as notices:
            async for notice in notices:
                if notice == word:
                    return
                await notify(engine, channel, word)
    except (TimeoutError, Unavailable) as error:
        raise StartError(
            "notices of the database are not heard: BOATYARD_DATABASE_LISTEN_URL, if it is set, must lead to the"
            " database of BOATYARD_DATABASE_URL, and not by a pooler of transactions"
        ) from error
