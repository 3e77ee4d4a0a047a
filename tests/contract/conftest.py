"""The gateway's tables on each kind of database: empty, or with ledgers and stores for the tests of the ledger."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import open_database
from services.coordinator.ledger import RemoteLedger
from services.gateway.schema.sealing import use_keys
from tests.kit.coordinators import Api, coordinator_api, remote_ledger
from tests.kit.databases import ring_of
from tests.kit.ledger import Books, books, clear


@pytest_asyncio.fixture(scope="module", params=["sqlite", "postgres"])
async def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Books]:
    """One database of each kind for all tests of a module: making one on PostgreSQL takes longer than the tests."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/test.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").get_uri()
    async with books(url) as opened:
        yield opened


@pytest_asyncio.fixture
async def book(opened: Books) -> Books:
    await clear(opened)
    return opened


@pytest_asyncio.fixture
async def engine(gateway_url: str) -> AsyncIterator[AsyncEngine]:
    """A database of the test's own, with the gateway's tables."""
    engine = open_database(gateway_url)
    use_keys(engine, ring_of(engine.url))
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def api(book: Books) -> AsyncIterator[Api]:
    """The coordinators' API on that database."""
    async with coordinator_api(book) as served:
        yield served


@pytest_asyncio.fixture
async def remote(api: Api) -> AsyncIterator[RemoteLedger]:
    """The ledger of a coordinator that has just registered there."""
    async with remote_ledger(api.address) as ledger:
        yield ledger
