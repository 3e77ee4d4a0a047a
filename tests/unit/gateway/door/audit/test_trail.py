"""What happens to audit records on their way to the database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.common.errors import Unavailable
from services.gateway.door.audit import trail as module
from services.gateway.door.audit.model import AuditRecord
from services.gateway.door.audit.store import AuditStore
from services.gateway.door.audit.trail import AuditTrail
from tests.contract.test_audit import RECORD


class Database(AuditStore):
    """Stands in for the store; a test says when it is away."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.away = False
        self.tries = 0

    async def add(self, records: Sequence[AuditRecord]) -> None:
        self.tries += 1
        if self.away:
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        self.stored += [record.record_id for record in records]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_SECONDS", 0.001)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.001)


@asynccontextmanager
async def running(trail: AuditTrail) -> AsyncIterator[None]:
    task = asyncio.create_task(trail.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def records(count: int, **changes: str) -> list[AuditRecord]:
    return [replace(RECORD, record_id=f"r{number}", **changes) for number in range(count)]


async def test_an_outage_is_waited_out_in_order() -> None:
    database = Database()
    database.away = True
    trail = AuditTrail(database)
    async with running(trail):
        for record in records(1200):
            trail.note(record)
        await until(lambda: database.tries > 2)
        database.away = False
        await until(lambda: len(database.stored) == 1200)
    assert database.stored == [record.record_id for record in records(1200)]


async def test_what_waits_at_the_end_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_SECONDS", 60)
    database = Database()
    trail = AuditTrail(database)
    async with running(trail):
        trail.note(RECORD)
        await asyncio.sleep(0.01)
        assert database.stored == []
    assert database.stored == ["r0"]


async def test_memory_is_bounded_and_no_call_fails_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 5)
    database = Database()
    trail = AuditTrail(database)
    for record in records(8):
        trail.note(record)
    async with running(trail):
        await until(lambda: len(database.stored) == 5)


async def test_a_flood_of_calls_by_nobody_is_cut_and_everything_else_is_kept() -> None:
    now = 5.0
    database = Database()
    trail = AuditTrail(database, lambda: now)
    for record in records(100, caller=""):
        trail.note(record)
    trail.note(replace(RECORD, record_id="somebody"))
    now = 6.5
    trail.note(replace(RECORD, record_id="later", caller=""))
    async with running(trail):
        await until(lambda: "later" in database.stored)
    assert database.stored == [*(f"r{number}" for number in range(10)), "somebody", "later"]
