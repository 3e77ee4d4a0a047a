"""One set of services for the tests that leave them as they found them, and a remote for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kit.repos import Repo
from tests.kit.services import Services, running_services


@pytest_asyncio.fixture(scope="package")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with running_services(tmp_path_factory.mktemp("services")) as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path) -> Repo:
    """A bare repository with a short history."""
    return Repo.sample(tmp_path / "source").bare_clone(tmp_path / "remote.git")
