"""Books on each kind of database, for the tests of what the ledger promises."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.ledger import Books, books, clear


@pytest_asyncio.fixture(scope="module", params=["sqlite", "postgres"])
async def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Books]:
    """One database of each kind for all tests of a module: making one on PostgreSQL takes longer than they do."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/test.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").get_uri()
    async with books(url) as opened:
        yield opened


@pytest_asyncio.fixture
async def book(opened: Books) -> Books:
    await clear(opened)
    return opened
