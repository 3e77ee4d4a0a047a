"""Which jobs a cell claims, and what becomes of a cell that is paused or away, on every kind of database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from services.common.db.columns import from_microseconds
from services.common.errors import FailedPrecondition
from services.gateway.catalog.store import REPOSITORIES, CatalogStore
from services.gateway.cells.state import StateStore
from services.gateway.cells.store import CellStore
from services.gateway.ledger.claiming import Claimer
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.values.catalog import Repository
from services.gateway.values.cells import Cell, CellState, Queue
from services.lifecycle.ledger import Lease
from services.lifecycle.model.ids import snapshot_of
from services.lifecycle.model.outcome import Failure, Outcome
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, books, claimed

LEASE_SECONDS = 60.0


@pytest.fixture
async def book(gateway_url: str) -> AsyncIterator[Books]:
    async with books(gateway_url) as opened:
        yield opened


async def expire(book: Books) -> None:
    """Make every lease expire."""
    async with book.engine.begin() as connection:
        await connection.execute(update(jobs).values(lease_until=now() - 1))


async def take(book: Books, cell_id: str, **how: Any) -> Lease | None:
    async with book.engine.begin() as connection:
        return await Claimer(cell_id, LEASE_SECONDS).claim(connection, **how)


def a_cell(cell_id: str, **known: Any) -> Cell:
    defaults = {"host": "host", "version": "1", "capacity": 4, "address": "127.0.0.1:1", "peer_token": "secret"}
    return Cell(cell_id=cell_id, **{**defaults, **known})


async def test_a_paused_cell_takes_nothing_new_and_goes_on_with_its_own(book: Books) -> None:
    store = CellStore(book.engine, LEASE_SECONDS)
    await store.register(a_cell("one"))
    one = await book.cell("one")
    begun = (await book.admit()).spec.job_id
    await claimed(one)
    await store.set_paused("one", paused=True)
    waiting = (await book.admit()).spec.job_id

    assert await one.claim() is None
    await store.register(a_cell("one", version="2"))
    back = await book.cell("one")
    assert (await claimed(back)).job_id == begun, "a restart changes nothing about it"
    assert await back.claim() is None
    (seen,) = await store.all()
    assert (seen.paused, seen.version, seen.running_jobs) == (True, "2", 1)

    await store.set_paused("one", paused=True, until_start=True)
    assert await back.claim() is None
    await store.register(a_cell("one"))
    assert (await claimed(back)).job_id == waiting, "that was a pause until the next start"


async def test_after_an_outage_a_cell_goes_on_with_its_own_jobs_and_leaves_others_theirs(book: Books) -> None:
    await book.admit()
    mine = await claimed(await book.cell("one"))
    await expire(book)

    assert await take(book, "two", takes_over=False) is None
    again = await take(book, "one", takes_over=False)
    assert again is not None
    assert (again.job_id, again.attempt, again.execution_id) == (mine.job_id, 1, mine.execution_id)
    await expire(book)
    taken = await take(book, "two")
    assert taken is not None
    assert taken.attempt == 2


async def test_a_cell_that_is_silent_for_three_leases_is_away(book: Books) -> None:
    store = CellStore(book.engine, LEASE_SECONDS)
    await store.register(a_cell("one"))
    (seen,) = await store.all()
    assert not seen.is_away
    silent = update(cells).values(beat_time=now() - int(3 * LEASE_SECONDS * 1e6) - 1)
    async with book.engine.begin() as connection:
        await connection.execute(silent)
    found = await store.find("one")
    assert found is not None
    assert found.state is CellState.AWAY
    assert (await store.set_paused("one", paused=True)).state is CellState.AWAY_PAUSED
    await store.forget("one")
    assert await store.find("one") is None


async def test_a_job_starts_from_a_snapshot_where_that_is_and_fails_when_that_cell_is_gone(book: Books) -> None:
    store = CellStore(book.engine, LEASE_SECONDS)
    await store.register(a_cell("one"))
    one, two = await book.cell("one"), await book.cell("two")
    await book.admit()
    lease = await claimed(one)
    await one.finish(lease, Outcome(JobState.FAILED, Failure("AGENT_FAILED", "it broke")))
    repository = Repository(
        repository_id="repo", project_id="default", url="https://example.com/r", create_time=datetime.now(UTC)
    )
    await CatalogStore(book.engine).create(REPOSITORIES, repository)
    fields = {"repository_id": "repo", "snapshot_id": snapshot_of(lease.execution_id)}
    job_id = (await book.admit(**fields)).spec.job_id

    assert await two.claim() is None
    with pytest.raises(FailedPrecondition, match="not away"):
        await store.forget("one")
    async with book.engine.begin() as connection:
        await connection.execute(update(cells).where(cells.c.cell_id == "one").values(beat_time=from_microseconds(0)))
    await store.forget("one")
    await store.forget("one")  # forgetting it again is a success
    await store.register_if_absent(a_cell("one"))  # it was only frozen, and comes back
    assert await store.find("one") is not None
    job = await book.store.job(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "NODE_LOST")


async def test_the_queue_is_counted_and_the_oldest_that_waits_is_known(book: Books) -> None:
    state = StateStore(book.engine)
    assert await state.queue() == Queue({}, None)
    first = await book.admit(priority=1)
    second = await book.admit()
    await book.admit(not_before=datetime.now(UTC) + timedelta(hours=1))
    assert await state.queue() == Queue({"PENDING": 3}, first.create_time)

    cell = await book.cell("one")
    await claimed(cell)
    assert await state.queue() == Queue({"PENDING": 2, "RUNNING": 1}, second.create_time)
    await claimed(cell)
    assert (await state.queue()).oldest_wait_time is None, "one that waits for its time does not wait for a slot"


async def test_a_database_tells_how_it_is(book: Books) -> None:
    told = await StateStore(book.engine).database()
    assert told.kind == book.engine.dialect.name
    assert told.schema_version.isdigit()
    assert told.schema_faults == ()
    assert told.latency > 0
    if told.kind == "postgresql":
        assert "boatyard" in [client.name for client in told.clients]
        assert sum(client.connections for client in told.clients) > 0
    else:
        assert told.clients == ()
