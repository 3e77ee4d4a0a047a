"""Opens the gateway's database, which may still be starting."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database
from services.common.db.migrate import migrate, name_of
from services.common.errors import StartError, Unavailable
from services.gateway.schema.metadata import MIGRATIONS

_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
# What no wait mends, in the words of PostgreSQL and libpq, which have no code for it.
_FINAL: Final = re.compile(
    r'authentication failed|(role|database) "[^"]*" does not exist|no password supplied|no pg_hba.conf entry'
    r"|permission denied for database|does not support SSL|SSL error|certificate|unsupported startup parameter"
    r"|unrecognized configuration parameter|invalid [a-z_ -]+( value)?:|parameter \"[^\"]*\" cannot be changed"
    r"|invalid value for parameter|is not (a directory|readable)",
    re.IGNORECASE,
)
_POOLER: Final = "unsupported startup parameter"

log = structlog.get_logger()


@asynccontextmanager
async def opened_database(url: str, cell_id: str, listen_url: str = "") -> AsyncIterator[AsyncEngine]:
    """Open a database, and migrate it to the newest schema; see `open_database`.

    Raises StartError: at once for what no wait mends, and if the database is not there in half a minute.
    """
    async with _reached(url, f"boatyard {cell_id}", listen_url, _PAUSES_SECONDS) as engine:
        await migrate(engine, MIGRATIONS)
        yield engine


@asynccontextmanager
async def database_to_check(url: str, listen_url: str = "") -> AsyncIterator[AsyncEngine]:
    """Open a database as it is. Raises StartError, at once, when a gateway could not use it."""
    async with _reached(url, "boatyard doctor", listen_url, ()) as engine:
        yield engine


@asynccontextmanager
async def _reached(url: str, name: str, listen_url: str, pauses: Sequence[float]) -> AsyncIterator[AsyncEngine]:
    engine = open_database(url, name, listen_url=listen_url)
    try:
        await _wait_until_reachable(engine, pauses)
        if engine.dialect.name == "postgresql":
            from services.common.db.sessions import check_sessions  # noqa: PLC0415 - see open_database

            await check_sessions(engine, url, is_pooled=bool(listen_url))
        yield engine
    finally:
        await engine.dispose()


async def _wait_until_reachable(engine: AsyncEngine, pauses: Sequence[float]) -> None:
    for seconds in (*pauses, 0.0):
        try:
            async with engine.connect():
                return
        except (Unavailable, DBAPIError) as error:
            words = _words(error)
            if not seconds or _FINAL.search(words) or isinstance(error, DBAPIError):
                raise StartError(f"{name_of(engine.url)} cannot be used: {words}{_advice(words)}") from error
            log.warning("waiting for the database", error=words)
            await asyncio.sleep(seconds)


def _words(error: BaseException) -> str:
    """Return the driver's own words, which have no password, on one line."""
    cause = error.__cause__ if isinstance(error, Unavailable) else error
    original = cause.orig if isinstance(cause, DBAPIError) else cause
    return " ".join(str(original).split())


def _advice(words: str) -> str:
    if _POOLER not in words:
        return ""
    return ". Is that a pooler? Name a direct URL of the same database in BOATYARD_DATABASE_LISTEN_URL"
