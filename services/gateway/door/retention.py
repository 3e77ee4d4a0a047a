"""What is forgotten in time: old records, and tokens that ended long ago."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.housekeeping import every_hour
from services.gateway.door.audit import store
from services.gateway.door.tokens import store as token_store


async def run_retention(engine: AsyncEngine, keep: timedelta) -> None:
    """Forget every hour what is older than it is kept, until cancelled."""

    async def old() -> bool:
        now = datetime.now(UTC)
        async with engine.begin() as connection:
            await store.remove_expired(connection, now - keep)
            await token_store.remove_expired(connection, now - token_store.ENDED_RETENTION)
        return False

    await every_hour("records of calls", old)
