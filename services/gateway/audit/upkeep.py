"""What is forgotten in time: old records, and tokens that ended long ago."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import Unavailable
from services.gateway.audit import store
from services.gateway.auth import store as token_store

_PAUSE_SECONDS = 3600.0

log = structlog.get_logger()


async def forget_in_time(engine: AsyncEngine, keep: timedelta) -> None:
    """Forget every hour what is older than it is kept, until cancelled; a database that is away is asked again."""
    while True:
        now = datetime.now(UTC)
        try:
            async with engine.begin() as connection:
                await store.forget(connection, now - keep)
                await token_store.forget(connection, now - token_store.ENDED_RETENTION)
        except (Unavailable, SQLAlchemyError) as error:
            log.warning("old records of calls are kept for now", error=str(error))
        await asyncio.sleep(_PAUSE_SECONDS)
