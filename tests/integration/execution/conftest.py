import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.execution.service import Client, running


@pytest_asyncio.fixture(scope="session")
async def shared() -> AsyncIterator[Client]:
    """One service for the tests that do not kill it."""
    directory = Path(tempfile.mkdtemp(prefix="execution-"))
    async with running(directory, MAX_OUTPUT_BYTES="1000000") as client:
        yield client
    shutil.rmtree(directory)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for the test's own service."""
    yield tmp_path
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
