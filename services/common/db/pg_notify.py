"""Notifications between processes that share a PostgreSQL: NOTIFY, and a separate connection that listens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.bounded import BoundedConnection
from services.common.db.postgres import listening_arguments

MAX_PAYLOAD_BYTES: Final = 7999
"""PostgreSQL's limit."""

_AGAIN_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 30.0

log = structlog.get_logger()


@asynccontextmanager
async def _closing(connection: psycopg.AsyncConnection) -> AsyncIterator[None]:
    """Close a connection without more traffic: psycopg's own context would first talk to a server that may be gone."""
    try:
        yield
    finally:
        await connection.close()


async def notify(engine: AsyncEngine, channel: str, payload: str) -> None:
    """Notify all current listeners of a channel, this process included. Raises Unavailable."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


async def notifications(engine: AsyncEngine, channel: str) -> AsyncGenerator[str | None, None]:
    """Yield a channel's notifications until closed, and None whenever some may have been missed, also at the start.

    A lost connection is made again, for as long as that takes.
    """
    while True:
        try:
            connection = await BoundedConnection.connect(autocommit=True, **listening_arguments(engine))
            async with _closing(connection):
                await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
                yield None
                while True:
                    async for notice in connection.notifies(timeout=_PROBE_SECONDS):
                        yield notice.payload
                    # A vanished peer is only noticed by sending it something.
                    await connection.execute("SELECT 1")
        except (psycopg.Error, OSError) as error:
            log.info("notifications are not received for now", error=" ".join(str(error).split()))
        await asyncio.sleep(_AGAIN_SECONDS)
