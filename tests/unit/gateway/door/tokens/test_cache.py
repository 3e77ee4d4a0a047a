"""How fresh cached tokens are, and what they cost the database."""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.db.engine import open_database, sqlite_url
from services.common.errors import Unavailable
from services.common.home import new_token
from services.common.rpc.auth import Credentials
from services.gateway.door.tokens import cache
from services.gateway.door.tokens.cache import CachedTokens
from services.gateway.door.tokens.store import TokenStore
from services.gateway.values.principal import Role, Token
from tests.kit.databases import add_database

CREDENTIALS = Credentials(None, "/a/B", "ipv4:127.0.0.1:1", {})


class CountingStore(TokenStore):
    lookups = 0
    away = False

    async def find_valid(self, hashes: Collection[bytes]) -> dict[bytes, Token]:
        self.lookups += 1
        if self.away:
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        return await super().find_valid(hashes)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    add_database(tmp_path / "db", "gateway")
    engine = open_database(sqlite_url(tmp_path / "db"))
    yield CountingStore(engine)
    await engine.dispose()


async def made(store: TokenStore, token_id: str) -> str:
    secret = new_token()
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


async def test_many_calls_are_one_look_and_a_revocation_is_known_in_time(store: CountingStore) -> None:
    clock = Clock()
    tokens = CachedTokens(store, clock)
    secret = await made(store, "t")
    answers = await asyncio.gather(*(tokens.principal(secret, CREDENTIALS) for _ in range(50)))
    assert {principal.name for principal in answers if principal} == {"t"}
    assert store.lookups == 1
    await store.revoke("t")  # on another cell: nobody tells this one
    assert await tokens.principal(secret, CREDENTIALS) is not None
    clock.now += cache.FRESH_SECONDS + 0.001
    assert await tokens.principal(secret, CREDENTIALS) is None
    assert cache.FRESH_SECONDS < 5, "as the contract says"


async def test_one_revoked_here_is_out_at_once(store: CountingStore) -> None:
    tokens = CachedTokens(store)
    secret = await made(store, "t")
    assert await tokens.principal(secret, CREDENTIALS) is not None
    await store.revoke("t")
    tokens.clear()
    assert await tokens.principal(secret, CREDENTIALS) is None


async def test_guesses_fill_nothing_and_strange_ones_cost_nothing(store: CountingStore) -> None:
    tokens = CachedTokens(store)
    for _ in range(3):
        assert await tokens.principal("boatyard_guess", CREDENTIALS) is None
        assert await tokens.principal("anything", CREDENTIALS) is None
    assert (store.lookups, len(tokens._lookups)) == (3, 0)


async def test_a_flood_of_unknown_tokens_is_a_few_questions_and_a_new_one_is_found_among_them(
    store: CountingStore,
) -> None:
    tokens = CachedTokens(store)
    secret = await made(store, "new")
    flood = [asyncio.create_task(tokens.principal(f"boatyard_{number}", CREDENTIALS)) for number in range(500)]
    await asyncio.sleep(0)
    principal = await tokens.principal(secret, CREDENTIALS)
    assert principal is not None
    assert principal.name == "new"
    assert await asyncio.gather(*flood) == [None] * 500
    assert store.lookups <= 2


async def test_no_more_are_kept_than_a_thousand(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MAX_KNOWN", 3)
    tokens = CachedTokens(store)
    for number in range(5):
        assert await tokens.principal(await made(store, f"t{number}"), CREDENTIALS)
    assert len(tokens._lookups) == 3


async def test_an_outage_is_said_and_not_remembered(store: CountingStore) -> None:
    tokens = CachedTokens(store)
    secret = await made(store, "t")
    store.away = True
    with pytest.raises(Unavailable):
        await tokens.principal(secret, CREDENTIALS)
    store.away = False
    assert await tokens.principal(secret, CREDENTIALS) is not None


async def test_a_caller_that_leaves_takes_the_answer_from_nobody(store: CountingStore) -> None:
    tokens = CachedTokens(store)
    secret = await made(store, "t")
    leaving = asyncio.create_task(tokens.principal(secret, CREDENTIALS))
    staying = asyncio.create_task(tokens.principal(secret, CREDENTIALS))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is not None
    assert store.lookups == 1
