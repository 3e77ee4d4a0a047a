"""One set of services for the tests that leave them as they found them; a remote, and a ledger, for each test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.db.engine import sqlite_url
from services.common.rpc.channel import open_channel
from services.lifecycle.nodes import Nodes, RetryLimits
from tests.kit.cell import NOT_KEPT_APART
from tests.kit.ledger import Books, books
from tests.kit.repos import Repo
from tests.kit.services import Services, running_services


@pytest_asyncio.fixture(scope="package")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    environment = NOT_KEPT_APART | {"BOATYARD_GIT_ALLOW_LOOPBACK_HTTP": "true", "BOATYARD_PROVIDER_ALLOW": "127.0.0.1"}
    async with running_services(tmp_path_factory.mktemp("services"), **environment) as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path) -> Repo:
    """A bare repository with a short history."""
    return Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")


@pytest_asyncio.fixture
async def nodes(services: Services) -> AsyncIterator[Nodes]:
    """The services of a node, for drivers that a test makes itself."""
    async with AsyncExitStack() as stack:
        token = services.home.cell_token()
        names = ("workspace", "git", "execution")
        channels = [await stack.enter_async_context(open_channel(services.address(name), token)) for name in names]
        yield Nodes(*channels, RetryLimits(away=5))


@pytest_asyncio.fixture
async def book(tmp_path: Path) -> AsyncIterator[Books]:
    """A ledger of its own, which no gateway knows."""
    async with books(sqlite_url(tmp_path / "gateway.db")) as opened_books:
        yield opened_books
