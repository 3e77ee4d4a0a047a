"""Services of each module's own, whose webhooks may call the receivers of its tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.hooks import Hooks
from tests.kit.services import Services, running_services


@pytest_asyncio.fixture(scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    root = tmp_path_factory.mktemp("services")
    async with running_services(root, BOATYARD_GATEWAY_WEBHOOK_ALLOW="127.0.0.1") as running:
        yield running


@pytest_asyncio.fixture
async def register(services: Services) -> Hooks:
    return await Hooks.of_new_project(services)
