"""Tokens in SQL: their hashes, never their secrets. Whether one is good now is the database's clock to say."""

import hashlib
import secrets
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.errors import NotFound
from services.gateway.catalog.store import PROJECTS
from services.gateway.schema import idempotency
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import NOW
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.sql import read_page
from services.gateway.schema.tokens import tokens
from services.gateway.values.cells import CellKind
from services.gateway.values.principal import Role, Token

SECRET_PREFIX = "boatyard_"  # noqa: S105 - the part that is no secret: people and scanners know it by that
ENDED_RETENTION = timedelta(days=90)
_USE_STEP = timedelta(minutes=5)

_COLUMNS = [tokens.c[field.name] for field in fields(Token)]
_KEY = (as_number(tokens.c.create_time), tokens.c.token_id)


def new_secret() -> str:
    """Make what a caller will show: 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


class TokenStore:
    """Knows the tokens. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, token: Token, secret: str, key: IdempotencyKey | None = None) -> Token:
        """Keep a token; for a request that was made before, return what that one made, which `secret` now opens.

        Raises NotFound for its projects, AlreadyExists (REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await idempotency.claim(connection, key, token.token_id)
            if earlier is not None:
                again = update(tokens).where(tokens.c.token_id == earlier).values(hash=hash_of(secret))
                await connection.execute(again)
                return await _get(connection, earlier)
            for project_id in token.projects:
                await PROJECTS.get(connection, project_id, hold="share")
            values = {field.name: getattr(token, field.name) for field in fields(token)}
            await connection.execute(insert(tokens).values(values | {"hash": hash_of(secret)}))
            return token

    async def shown(self, secret: str) -> Token | None:
        """Return the token that a caller has shown, if it is good now; note its use, once in 5 minutes."""
        async with self._engine.begin() as connection:
            query = select(*_COLUMNS, NOW.label("now")).where(tokens.c.hash == hash_of(secret), _good())
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                return None
            values = dict(row)
            now: datetime = values.pop("now")
            token = Token(**values)
            if token.last_use_time is None or now - token.last_use_time > _USE_STEP:
                used = update(tokens).where(tokens.c.token_id == token.token_id)
                await connection.execute(used.values(last_use_time=now))
            return token

    async def page(self, page: Page, *, ended: bool) -> tuple[list[Token], str]:
        """Return a page of tokens, the newest first: those that are good, or all of them."""
        statement = select(*_COLUMNS) if ended else select(*_COLUMNS).where(_good())
        async with self._engine.begin() as connection:
            return await read_page(
                connection,
                page.select(statement, _KEY, descending=True),
                page,
                Token,
                lambda token: (microseconds(token.create_time), token.token_id),
            )

    async def bind(self, token_id: str, coordinator_id: str) -> str:
        """Make a coordinator's token that one's, if it is nobody's yet; return whose it is.

        Empty: it is nobody's, and does not become this one's, for another good token is, or the id is a gateway's cell.
        """
        own, others = tokens.c.token_id == token_id, tokens.c.coordinator_id == coordinator_id
        cell = select(cells.c.cell_id).where(cells.c.cell_id == coordinator_id, cells.c.kind == CellKind.GATEWAY)
        async with self._engine.begin() as connection:
            # One at a time, by the locks of all: of two tokens that are shown as one coordinator for the first time the
            # second is to see the first.
            every = select(tokens.c.token_id).where(tokens.c.role == Role.COORDINATOR).order_by(tokens.c.token_id)
            await connection.execute(every.with_for_update())
            free = ~select(tokens.c.token_id).where(others, _good()).exists() & ~cell.exists()
            first = update(tokens).where(own, tokens.c.coordinator_id == "", free)
            await connection.execute(first.values(coordinator_id=coordinator_id))
            return (await _get(connection, token_id)).coordinator_id

    async def revoke(self, token_id: str) -> Token:
        """Take a token back; once more does nothing. Raises NotFound."""
        first = func.coalesce(tokens.c.revoke_time, NOW, type_=BigInteger)
        async with self._engine.begin() as connection:
            await connection.execute(update(tokens).where(tokens.c.token_id == token_id).values(revoke_time=first))
            return await _get(connection, token_id)


async def remove_expired(connection: AsyncConnection, before: datetime) -> int:
    """Forget the tokens that ended before a moment; return how many."""
    ended = or_(tokens.c.revoke_time < before, tokens.c.expire_time < before)
    return (await connection.execute(delete(tokens).where(ended))).rowcount


def _good() -> ColumnElement[bool]:
    lasting = or_(tokens.c.expire_time.is_(None), tokens.c.expire_time > NOW)
    return lasting & tokens.c.revoke_time.is_(None)


async def _get(connection: AsyncConnection, token_id: str) -> Token:
    row = (await connection.execute(select(*_COLUMNS).where(tokens.c.token_id == token_id))).mappings().first()
    if row is None:
        raise NotFound("token", token_id)
    return Token(**row)
