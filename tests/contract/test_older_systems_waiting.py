"""Why a job that is PENDING waits: each of the words, with what has to happen first, wherever jobs are shown."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from services.common.db.paging import Page
from services.gateway.cells.store import CellStore
from services.gateway.jobs.wire import job_to_proto
from services.gateway.values.cells import Cell
from services.gateway.values.jobs import JobFilter, JobView, Waiting, WaitsFor
from services.lifecycle.model.condition import Condition, Trouble
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from tests.contract.test_turns import NOW, limited, taken
from tests.kit.ledger import Books, claimed

CELL = Cell(cell_id="cell", host="h", version="1", capacity=2, address="", peer_token="")
SUCCEEDED = Outcome(JobState.SUCCEEDED)
UNKNOWN = Condition(None)


async def registered(book: Books, cell: Cell = CELL) -> CellStore:
    store = CellStore(book.engine, 20)
    await store.register(cell, Condition(None))
    return store


async def shown(book: Books, job_id: str) -> Waiting | None:
    """Return what a job waits for, which its record, a list and a watch say alike."""
    one = (await book.store.job(job_id)).waiting_for
    listed, _ = await book.store.jobs(JobFilter(), Page())
    (watched,) = await book.store.brief([job_id])
    (_, changed) = await book.store.changed([(job_id, 0)])
    waits: list[JobView] = [*(view for view in listed if view.spec.job_id == job_id), watched, changed[job_id]]
    assert [view.waiting_for for view in waits] == [one] * 3
    assert job_to_proto(watched, brief=True).HasField("waiting_for") == (one is not None)
    return one


@pytest.mark.parametrize("kind", ["project", "repository", "worker"])
async def test_the_limit_that_a_job_waits_for_is_told_with_the_jobs_that_run(book: Books, kind: str) -> None:
    fields = await limited(book, kind, 1)
    await registered(book, replace(CELL, cell_id="able", capacity=4))
    cell = await book.cell("cell")
    first = (await book.admit(**fields)).spec.job_id
    second = (await book.admit(**fields)).spec.job_id
    assert await shown(book, second) is None, "a cell is about to take it"
    (lease,) = await taken(cell)
    assert lease.job_id == first
    text = f"{kind} {fields[f'{kind}_id']} runs as many jobs at once as it may: 1, by its --max-running ({first})"
    assert await shown(book, second) == Waiting(WaitsFor[f"{kind.upper()}_LIMIT"], text, running_job_ids=(first,))
    assert await shown(book, (await book.admit()).spec.job_id) is None, "others do not wait for it"
    await cell.finish(lease, SUCCEEDED)
    assert await shown(book, second) is None


@dataclass(frozen=True)
class Fleet:
    """Cells and what is told of them; `seconds` is how long ago the one cell was heard of."""

    cells: tuple[Cell, ...]
    paused: bool = False
    condition: Condition = UNKNOWN
    message: str | None = None


FLEETS = {
    "none": Fleet((), message="no cell has a place: there is none"),
    "one with room": Fleet((CELL,)),
    "takes none": Fleet((replace(CELL, capacity=0),), message="cell takes none, by its settings"),
    "paused": Fleet((CELL,), paused=True, message="cell is paused"),
    "not ready": Fleet(
        (CELL,), condition=Condition(None, (Trouble("DISK_FULL", "no room"),)), message="cell is not ready (DISK_FULL"
    ),
    "one of two is paused": Fleet((CELL, replace(CELL, cell_id="other")), paused=True),
}


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
async def test_a_job_without_a_place_is_told_what_each_cell_lacks(book: Books, fleet: Fleet) -> None:
    for cell in fleet.cells:
        store = await registered(book, cell)
    if fleet.cells:
        await store.set_paused("cell", paused=fleet.paused)
        await store.set_condition("cell", fleet.condition)
    waiting = await shown(book, (await book.admit()).spec.job_id)
    if fleet.message is None:
        assert waiting is None
    else:
        assert waiting is not None
        assert waiting.kind is WaitsFor.NO_PLACE
        assert fleet.message in waiting.message


async def test_full_cells_are_no_place(book: Books) -> None:
    await registered(book)
    cell = await book.cell("cell")
    waiting = [(await book.admit()).spec.job_id for _ in range(3)]
    leases = [await claimed(cell) for _ in range(2)]
    (left,) = set(waiting) - {lease.job_id for lease in leases}
    assert await shown(book, left) == Waiting(WaitsFor.NO_PLACE, "no cell has a place: cell runs 2 of 2 jobs")
    await cell.finish(leases[0], SUCCEEDED)
    assert await shown(book, left) is None


async def test_a_time_and_a_pause_are_waited_for_before_anything_else(book: Books) -> None:
    later = await book.admit(not_before=NOW + timedelta(hours=1))
    waiting = await shown(book, later.spec.job_id)
    assert waiting is not None
    assert waiting.kind is WaitsFor.NOT_BEFORE
    assert f"{NOW + timedelta(hours=1):%Y-%m-%d %H:%M}" in waiting.message


async def test_what_does_not_wait_has_no_word_for_it(book: Books) -> None:
    running = (await book.admit()).spec.job_id
    lease = await claimed(cell := await book.cell("cell"))
    assert await shown(book, running) is None
    await cell.finish(lease, SUCCEEDED)
    assert await shown(book, running) is None
