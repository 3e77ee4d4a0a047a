"""Opens the gateway's database, which may still be starting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from services.common.errors import StartError, Unavailable
from services.gateway.schema.metadata import MIGRATIONS

_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)

log = structlog.get_logger()


@asynccontextmanager
async def opened_database(url: str, cell_id: str) -> AsyncIterator[AsyncEngine]:
    """Open a database, and migrate it to the newest schema. Raises StartError if it is not there in half a minute."""
    engine = open_database(url, f"boatyard {cell_id}")
    try:
        await _wait_until_reachable(engine)
        await migrate(engine, MIGRATIONS)
        yield engine
    finally:
        await engine.dispose()


async def _wait_until_reachable(engine: AsyncEngine) -> None:
    for seconds in (*_PAUSES_SECONDS, 0.0):
        try:
            async with engine.connect():
                return
        except Unavailable as error:
            if not seconds:
                raise StartError(f"cannot reach the database: {error.__cause__}") from error
            log.warning("waiting for the database", error=str(error.__cause__))
            await asyncio.sleep(seconds)
