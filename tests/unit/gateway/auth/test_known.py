"""How fresh what is known of tokens is, and what it costs the database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.db.engine import open_database, sqlite_url
from services.common.db.migrate import migrate
from services.common.errors import Unavailable
from services.common.rpc.auth import Credentials
from services.gateway.auth import known
from services.gateway.auth.known import StoredTokens
from services.gateway.auth.model import Role, Token
from services.gateway.auth.store import TokenStore, new_secret

SHOWN = Credentials(None, "/a/B", "ipv4:127.0.0.1:1", {})


class Counting(TokenStore):
    looks = 0
    away = False

    async def shown(self, secret: str) -> Token | None:
        self.looks += 1
        if self.away:
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        return await super().shown(secret)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Counting]:
    engine = open_database(sqlite_url(tmp_path / "db"))
    await migrate(engine, "services.gateway.migrations")
    yield Counting(engine)
    await engine.dispose()


async def made(store: TokenStore, token_id: str) -> str:
    secret = new_secret()
    token = Token(
        token_id=token_id,
        name=token_id,
        role=Role.VIEWER,
        projects=(),
        creator="admin",
        create_time=datetime.now(UTC),
    )
    await store.create(token, secret)
    return secret


async def test_many_calls_are_one_look_and_a_revocation_is_known_in_time(store: Counting) -> None:
    clock = Clock()
    tokens = StoredTokens(store, clock)
    secret = await made(store, "t")
    answers = await asyncio.gather(*(tokens.access(secret, SHOWN) for _ in range(50)))
    assert {access.name for access in answers if access} == {"t"}
    assert store.looks == 1
    await store.revoke("t")  # on another cell: nobody tells this one
    assert await tokens.access(secret, SHOWN) is not None
    clock.now += known.FRESH_SECONDS + 0.001
    assert await tokens.access(secret, SHOWN) is None
    assert known.FRESH_SECONDS < 5, "as the contract says"


async def test_one_revoked_here_is_out_at_once(store: Counting) -> None:
    tokens = StoredTokens(store)
    secret = await made(store, "t")
    assert await tokens.access(secret, SHOWN) is not None
    await store.revoke("t")
    tokens.forget()
    assert await tokens.access(secret, SHOWN) is None


async def test_guesses_fill_nothing_and_strange_ones_cost_nothing(store: Counting) -> None:
    tokens = StoredTokens(store)
    for _ in range(3):
        assert await tokens.access("boatyard_guess", SHOWN) is None
        assert await tokens.access("anything", SHOWN) is None
    assert (store.looks, len(tokens._looks)) == (3, 0)


async def test_no_more_are_kept_than_a_thousand(store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MAX_KNOWN", 3)
    tokens = StoredTokens(store)
    for number in range(5):
        assert await tokens.access(await made(store, f"t{number}"), SHOWN)
    assert len(tokens._looks) == 3


async def test_an_outage_is_said_and_not_remembered(store: Counting) -> None:
    tokens = StoredTokens(store)
    secret = await made(store, "t")
    store.away = True
    with pytest.raises(Unavailable):
        await tokens.access(secret, SHOWN)
    store.away = False
    assert await tokens.access(secret, SHOWN) is not None


async def test_a_caller_that_leaves_takes_the_answer_from_nobody(store: Counting) -> None:
    tokens = StoredTokens(store)
    secret = await made(store, "t")
    leaving = asyncio.create_task(tokens.access(secret, SHOWN))
    staying = asyncio.create_task(tokens.access(secret, SHOWN))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is not None
    assert store.looks == 1
