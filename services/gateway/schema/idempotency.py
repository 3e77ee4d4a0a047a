"""Calls that are safe to repeat: which request ids were used, for what, and what the calls made.

An id is one among those of a namespace: a project, or NO_PROJECT, or one coordinator's claims. Two namespaces may have
the same id for different calls. A store claims the id in the transaction that does the work:

    async with engine.begin() as connection:
        earlier = await idempotency.claim(connection, key, project_id, reference=new.job_id)
        if earlier is not None:
            return await get(connection, earlier)     # the same call again: the same response
        …                                             # the first call: do it; if it fails, so does the claim
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Column, Index, LargeBinary, String, Table, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import Moment
from services.common.db.retention import every_hour
from services.common.errors import AlreadyExists
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sql import Insertion

RETENTION = timedelta(days=7)
"""How long ids are remembered at least; the contract says the same."""

NO_PROJECT: Final = ""
"""The namespace of calls that make what belongs to no project, such as tokens and projects themselves."""

request_ids = Table(
    "request_ids",
    metadata,
    # A digest of the namespace and the id. Until 29 November 2026 the id alone; such a row is of an unknown namespace.
    Column("request_id", String(63), primary_key=True),
    Column("method", String(127), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("reference", String(63), nullable=False),
    Column("create_time", Moment, nullable=False),
    Index("request_ids_oldest", "create_time"),
)

_FIND: Final = select(request_ids).where(request_ids.c.request_id.in_(bindparam("these", expanding=True)))
_CLAIM: Final = Insertion(request_ids, {})


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """One call: the id that its caller gave it, what it calls, and a digest (SHA-256) of its content."""

    request_id: str
    method: str
    digest: bytes


async def claim(connection: AsyncConnection, key: IdempotencyKey | None, namespace: str, reference: str) -> str | None:
    """Claim a request's id for this transaction, which makes `reference`; None means that the call is the first.

    When the same call is made twice at once, one is the first, and the other waits for it. Returns the reference that
    the first call made, if there was one. A call without an id (None) is always the first.
    Raises AlreadyExists (REQUEST_ID_REUSED) when the id was used in the namespace for another request.
    """
    if key is None:
        return None
    earlier = await find(connection, key, namespace)
    if earlier is not None:
        return earlier
    values = {
        "request_id": _row_id(namespace, key.request_id),
        "method": key.method,
        "digest": key.digest,
        "reference": reference,
        "create_time": datetime.now(UTC),
    }
    if await _CLAIM.execute(connection, values):
        return None
    return await find(connection, key, namespace)


async def find(connection: AsyncConnection, key: IdempotencyKey | None, namespace: str) -> str | None:
    """Return what the first call with a request's id made; None when there was none. Raises the same as `claim`."""
    if key is None:
        return None
    row_id = _row_id(namespace, key.request_id)
    for row in (await connection.execute(_FIND, {"these": (row_id, key.request_id)})).all():
        if (row.method, row.digest) == (key.method, key.digest):
            return str(row.reference)
        if row.request_id == row_id:
            raise AlreadyExists(
                "request",
                key.request_id,
                reason="REQUEST_ID_REUSED",
                message=f"request id {key.request_id!r} was used with another request: use a new one",
            )
    return None


def _row_id(namespace: str, request_id: str) -> str:
    """Return an id that no caller can have chosen: '@' is in none of theirs."""
    return "@" + hashlib.sha256(f"{namespace}\0{request_id}".encode()).hexdigest()[:62]


async def run_retention(engine: AsyncEngine) -> None:
    """Remove old ids every hour until cancelled."""

    async def remove_old() -> bool:
        async with engine.begin() as connection:
            await remove_expired(connection, datetime.now(UTC) - RETENTION)
        return False

    await every_hour("request ids", remove_old)


async def remove_expired(connection: AsyncConnection, before: datetime) -> int:
    """Remove the ids that were used before a moment; return how many."""
    return (await connection.execute(delete(request_ids).where(request_ids.c.create_time < before))).rowcount
