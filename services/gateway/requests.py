"""Calls that are safe to repeat: which request ids were used, for what, and what came of it.

A store claims the id in the transaction that does the work:

    async with engine.begin() as connection:
        earlier = await requests.claim(connection, request, reference=new.job_id)
        if earlier is not None:
            return await get(connection, earlier)     # the same call again: the same answer
        …                                             # the first: do it; if this fails, the claim goes with it
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, Index, LargeBinary, String, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import Moment
from services.common.db.retention import every_hour
from services.common.errors import AlreadyExists
from services.gateway.database import metadata
from services.gateway.sql import insert_if_absent

RETENTION = timedelta(days=7)
"""How long ids are remembered, at least; the contract says so too."""

request_ids = Table(
    "request_ids",
    metadata,
    Column("request_id", String(63), primary_key=True),
    Column("method", String(127), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("reference", String(63), nullable=False),
    Column("create_time", Moment, nullable=False),
    Index("request_ids_oldest", "create_time"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One call: the id that its caller gave it, what it calls, and a digest (SHA-256) of all that it says."""

    request_id: str
    method: str
    digest: bytes


async def claim(connection: AsyncConnection, request: Request | None, reference: str) -> str | None:
    """Take a request's id for this transaction, which makes `reference`; None means that the call is the first.

    Of the same call made twice at once one is the first, and the other waits for it. Returns the reference that the
    first one made, when there was a first one. A call without an id (None) is always the first.
    Raises AlreadyExists(REQUEST_ID_REUSED) when the id was used for anything else.
    """
    if request is None:
        return None
    values = {
        "request_id": request.request_id,
        "method": request.method,
        "digest": request.digest,
        "reference": reference,
        "create_time": datetime.now(UTC),
    }
    if await insert_if_absent(connection, request_ids, values):
        return None
    return await find(connection, request)


async def find(connection: AsyncConnection, request: Request | None) -> str | None:
    """Return what the first call of a request's id made; None when there was none. Raises as `claim`."""
    if request is None:
        return None
    query = select(request_ids).where(request_ids.c.request_id == request.request_id)
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    if (row.method, row.digest) != (request.method, request.digest):
        raise AlreadyExists(
            "request",
            request.request_id,
            reason="REQUEST_ID_REUSED",
            message=f"request id {request.request_id!r} was used with another request: take a new one",
        )
    return str(row.reference)


async def forget_in_time(engine: AsyncEngine) -> None:
    """Forget old ids every hour, until cancelled."""

    async def old() -> bool:
        async with engine.begin() as connection:
            await forget(connection, datetime.now(UTC) - RETENTION)
        return False

    await every_hour("request ids", old)


async def forget(connection: AsyncConnection, before: datetime) -> int:
    """Forget the ids that were used before a moment; return how many."""
    return (await connection.execute(delete(request_ids).where(request_ids.c.create_time < before))).rowcount
