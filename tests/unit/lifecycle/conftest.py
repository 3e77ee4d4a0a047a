from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.db.engine import sqlite_url
from tests.kit.ledger import Books, books


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Books]:
    async with books(sqlite_url(tmp_path / "gateway.db")) as opened:
        yield opened
