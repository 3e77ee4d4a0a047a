"""Tokens on every kind of database: one suite for SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.paging import Page
from services.common.errors import NotFound
from services.common.home import new_token
from services.gateway.cells.store import CellStore
from services.gateway.door.tokens.store import TokenStore, hash_of, remove_expired
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.tokens import tokens
from services.gateway.values.cells import Cell
from services.gateway.values.principal import Principal, Role, Token

LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
TOKEN = Token(
    token_id="token-1", name="ci", role=Role.OPERATOR, projects=("default",), creator="admin", create_time=LONG_AGO
)


@pytest.fixture
def store(engine: AsyncEngine) -> TokenStore:
    return TokenStore(engine)


async def valid(store: TokenStore, secret: str) -> Token | None:
    return (await store.find_valid([hash_of(secret)])).get(hash_of(secret))


async def test_a_token_is_known_by_its_secret_which_is_nowhere(store: TokenStore, engine: AsyncEngine) -> None:
    secret = new_token()
    assert await store.create(TOKEN, secret) == TOKEN
    assert await valid(store, secret) == TOKEN
    assert TOKEN.principal == Principal("ci", Role.OPERATOR, frozenset({"default"}), token_id="token-1")
    assert await valid(store, secret + "x") is None
    async with engine.begin() as connection:
        (row,) = (await connection.execute(text("SELECT * FROM tokens"))).all()
    assert secret not in str(row)
    assert secret.removeprefix("boatyard_") not in str(row)
    assert hash_of(secret) in [bytes(value) for value in row if isinstance(value, bytes | memoryview)]


async def test_what_ended_is_good_no_more_and_listed_only_when_asked_for(store: TokenStore) -> None:
    ends = {
        "lasts": None,
        "to-come": datetime.now(UTC) + timedelta(hours=1),
        "over": datetime.now(UTC) - timedelta(hours=1),
    }
    for name, expire_time in ends.items():
        await store.create(replace(TOKEN, token_id=name, name=name, expire_time=expire_time), f"boatyard_{name}")
    await store.create(replace(TOKEN, token_id="revoked", name="revoked"), "boatyard_revoked")
    revoked = await store.revoke("revoked")
    assert revoked.revoke_time is not None
    assert await store.revoke("revoked") == revoked, "once more does nothing"
    good = {name for name in (*ends, "revoked") if await valid(store, f"boatyard_{name}")}
    assert good == {"lasts", "to-come"}
    listed, _ = await store.page(Page(), ended=False)
    assert {token.token_id for token in listed} == good
    listed, _ = await store.page(Page(), ended=True)
    assert {token.token_id for token in listed} == {*ends, "revoked"}
    with pytest.raises(NotFound):
        await store.revoke("nothing")


async def test_the_last_use_is_kept_but_not_written_at_each(store: TokenStore, engine: AsyncEngine) -> None:
    async def last_use() -> datetime:
        ((token,), _) = await store.page(Page(), ended=True)
        assert token.last_use_time is not None
        return token.last_use_time

    await store.create(TOKEN, "boatyard_x")
    await valid(store, "boatyard_x")
    first = await last_use()
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)
    await valid(store, "boatyard_x")
    assert await last_use() == first
    async with engine.begin() as connection:
        await connection.execute(update(tokens).values(last_use_time=first - timedelta(minutes=6)))
    await valid(store, "boatyard_x")
    assert await last_use() > first


async def test_the_same_request_is_the_same_token_with_the_last_secret(store: TokenStore) -> None:
    request = IdempotencyKey("r", "CreateToken", b"digest")
    await store.create(TOKEN, "boatyard_lost", request)
    assert await store.create(replace(TOKEN, token_id="token-2"), "boatyard_new", request) == TOKEN
    assert await valid(store, "boatyard_lost") is None, "whoever read the lost answer has nothing"
    assert await valid(store, "boatyard_new") is not None
    with pytest.raises(NotFound) as refused:
        await store.create(replace(TOKEN, token_id="token-3", projects=("nowhere",)), "boatyard_3")
    assert refused.value.reason == "PROJECT_NOT_FOUND"


async def test_what_ended_long_ago_is_forgotten(store: TokenStore, engine: AsyncEngine) -> None:
    old = datetime.now(UTC) - timedelta(days=2)
    await store.create(replace(TOKEN, expire_time=old), "boatyard_old")
    await store.create(replace(TOKEN, token_id="good"), "boatyard_good")
    async with engine.begin() as connection:
        assert await remove_expired(connection, old) == 0
        assert await remove_expired(connection, old + timedelta(days=1)) == 1
    ((left,), _) = await store.page(Page(), ended=True)
    assert left.token_id == "good"


def coordinators_token(token_id: str, **changes: object) -> Token:
    return replace(TOKEN, token_id=token_id, role=Role.COORDINATOR, **changes)  # type: ignore[arg-type]


async def test_a_coordinators_token_is_the_first_ones_that_shows_it(store: TokenStore) -> None:
    for name in ("one", "two"):
        await store.create(coordinators_token(name), f"boatyard_{name}")
    assert await store.bind("one", "barge") == "barge"
    assert await store.bind("one", "raft") == "barge", "and stays it"
    assert await store.bind("two", "barge") == "", "which has a token"
    await store.revoke("one")
    assert await store.bind("two", "barge") == "barge", "and now has none"
    await store.create(coordinators_token("three", coordinator_id="barge"), "boatyard_three")
    token = await valid(store, "boatyard_three")
    assert token is not None
    assert token.principal.coordinator_id == "barge", "an administrator may make a second one"


async def test_of_two_tokens_that_are_shown_as_one_coordinator_at_once_one_is_its(store: TokenStore) -> None:
    names = [f"token-{number}" for number in range(6)]
    for name in names:
        await store.create(coordinators_token(name), f"boatyard_{name}")
    bound = await asyncio.gather(*(store.bind(name, "barge") for name in names))
    assert sorted(bound) == ["", "", "", "", "", "barge"]


async def test_no_token_becomes_a_gateways_cell(store: TokenStore, engine: AsyncEngine) -> None:
    await CellStore(engine, 60).register(
        Cell(cell_id="cell-1", host="here", version="1", capacity=1, address="", peer_token="x")
    )
    await store.create(coordinators_token("one"), "boatyard_one")
    assert await store.bind("one", "cell-1") == ""
    assert await store.bind("one", "barge") == "barge"
