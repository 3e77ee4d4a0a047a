"""Tokens in SQL: their hashes, never their secrets. The database's clock decides which are valid now."""

import hashlib
from collections.abc import Collection
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.engine import reading
from services.common.db.paging import Page
from services.common.errors import NotFound
from services.gateway.catalog.store import PROJECTS
from services.gateway.schema import idempotency
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import NOW
from services.gateway.schema.idempotency import NO_PROJECT, IdempotencyKey
from services.gateway.schema.sql import read_page
from services.gateway.schema.tokens import tokens
from services.gateway.values.cells import CellKind
from services.gateway.values.principal import Role, Token

ENDED_RETENTION = timedelta(days=90)
_USE_STEP = timedelta(minutes=5)

_COLUMNS = [tokens.c[field.name] for field in fields(Token)]
_KEY = (as_number(tokens.c.create_time), tokens.c.token_id)


def hash_of(secret: str) -> bytes:
    """Return the hash of a secret, which is all of it that is stored."""
    return hashlib.sha256(secret.encode()).digest()


class TokenStore:
    """Stores and finds tokens. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, token: Token, secret: str, key: IdempotencyKey | None = None) -> Token:
        """Store a token; for a repeated request, return the token made before, whose secret is `secret` from now on.

        Raises NotFound for its projects, AlreadyExists (REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await idempotency.claim(connection, key, NO_PROJECT, token.token_id)
            if earlier is not None:
                replace_secret = update(tokens).where(tokens.c.token_id == earlier).values(hash=hash_of(secret))
                await connection.execute(replace_secret)
                return await _get(connection, earlier)
            for project_id in token.projects:
                await PROJECTS.get(connection, project_id, hold="share")
            values = {field.name: getattr(token, field.name) for field in fields(token)}
            await connection.execute(insert(tokens).values(values | {"hash": hash_of(secret)}))
            return token

    async def find_valid(self, hashes: Collection[bytes]) -> dict[bytes, Token]:
        """Return the tokens with these hashes that are valid now; record their use, at most once in 5 minutes."""
        query = select(*_COLUMNS, tokens.c.hash, NOW.label("now")).where(tokens.c.hash.in_(hashes), _is_valid())
        found: dict[bytes, Token] = {}
        unrecorded: list[str] = []
        async with reading(self._engine) as connection:
            for row in (await connection.execute(query)).mappings():
                values = dict(row)
                now: datetime = values.pop("now")
                key = values.pop("hash")
                token = found[key] = Token(**values)
                if token.last_use_time is None or now - token.last_use_time > _USE_STEP:
                    unrecorded.append(token.token_id)
        if unrecorded:
            used = update(tokens).where(tokens.c.token_id.in_(unrecorded))
            async with self._engine.begin() as connection:
                await connection.execute(used.values(last_use_time=NOW))
        return found

    async def page(self, page: Page, *, ended: bool) -> tuple[list[Token], str]:
        """Return a page of tokens, the newest first: the valid ones, or with `ended` all of them."""
        statement = select(*_COLUMNS) if ended else select(*_COLUMNS).where(_is_valid())
        async with self._engine.begin() as connection:
            return await read_page(
                connection,
                page.select(statement, _KEY, descending=True),
                page,
                Token,
                lambda token: (microseconds(token.create_time), token.token_id),
            )

    async def bind(self, token_id: str, coordinator_id: str) -> str:
        """Bind a token to a coordinator, if it is not bound yet; return the id of the coordinator that it is bound to.

        The id is empty if the token stays unbound, because another valid token is bound to this coordinator, or the id
        is that of a gateway's cell.
        """
        own, others = tokens.c.token_id == token_id, tokens.c.coordinator_id == coordinator_id
        cell = select(cells.c.cell_id).where(cells.c.cell_id == coordinator_id, cells.c.kind == CellKind.GATEWAY)
        async with self._engine.begin() as connection:
            # Locking all coordinators' tokens makes this happen one at a time: when two tokens are used for the same
            # coordinator for the first time, the second transaction has to see what the first one wrote.
            all_tokens = select(tokens.c.token_id).where(tokens.c.role == Role.COORDINATOR).order_by(tokens.c.token_id)
            await connection.execute(all_tokens.with_for_update())
            free = ~select(tokens.c.token_id).where(others, _is_valid()).exists() & ~cell.exists()
            bind = update(tokens).where(own, tokens.c.coordinator_id == "", free)
            await connection.execute(bind.values(coordinator_id=coordinator_id))
            return (await _get(connection, token_id)).coordinator_id

    async def revoke(self, token_id: str) -> Token:
        """Revoke a token; revoking it again changes nothing. Raises NotFound."""
        first_revocation = func.coalesce(tokens.c.revoke_time, NOW, type_=BigInteger)
        async with self._engine.begin() as connection:
            await connection.execute(
                update(tokens).where(tokens.c.token_id == token_id).values(revoke_time=first_revocation)
            )
            return await _get(connection, token_id)


async def remove_expired(connection: AsyncConnection, before: datetime) -> int:
    """Remove the tokens that ended before a moment; return how many."""
    ended = or_(tokens.c.revoke_time < before, tokens.c.expire_time < before)
    return (await connection.execute(delete(tokens).where(ended))).rowcount


def _is_valid() -> ColumnElement[bool]:
    unexpired = or_(tokens.c.expire_time.is_(None), tokens.c.expire_time > NOW)
    return unexpired & tokens.c.revoke_time.is_(None)


async def _get(connection: AsyncConnection, token_id: str) -> Token:
    row = (await connection.execute(select(*_COLUMNS).where(tokens.c.token_id == token_id))).mappings().first()
    if row is None:
        raise NotFound("token", token_id)
    return Token(**row)
