"""What is forgotten in time: old records, and tokens that ended long ago."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.retention import every_hour
from services.gateway.audit import store
from services.gateway.auth import store as token_store


async def forget_in_time(engine: AsyncEngine, keep: timedelta) -> None:
    """Forget every hour what is older than it is kept, until cancelled."""

    async def old() -> bool:
        now = datetime.now(UTC)
        async with engine.begin() as connection:
            await store.forget(connection, now - keep)
            await token_store.forget(connection, now - token_store.ENDED_RETENTION)
        return False

    await every_hour("records of calls", old)
