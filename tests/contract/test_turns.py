"""The order of claims: limits hold exactly, projects get their share, and no job waits for ever."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
from sqlalchemy import type_coerce

from services.common.db.columns import Moment, as_number
from services.common.ids import new_id
from services.gateway.catalog.store import PROJECTS, REPOSITORIES, WORKERS, CatalogStore
from services.gateway.ledger.claim_queries import ClaimFilter
from services.gateway.ledger.scheduling import turn_of
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.values.catalog import Project, Repository, Worker
from services.lifecycle.ledger import Lease
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, claimed, expire_leases, park, set_job

NOW = datetime.now(UTC)
MINUTE = 60_000_000
SUCCEEDED = Outcome(JobState.SUCCEEDED)


async def project(book: Books, **fields: int) -> str:
    made = Project(project_id=new_id("project"), create_time=NOW, **fields)
    return (await CatalogStore(book.engine).create(PROJECTS, made)).project_id


async def taken(cell: SqlLedger) -> list[Lease]:
    """Claim every job that can be claimed."""
    leases = []
    while (lease := await cell.claim()) is not None:
        leases.append(lease)
    return leases


async def make_older(book: Books, job_id: str, minutes: int) -> None:
    """Set the time of a job's admission back."""
    earlier = type_coerce(as_number(jobs.c.create_time) - minutes * MINUTE, Moment)
    await set_job(book, job_id, create_time=earlier, turn=jobs.c.turn - minutes * MINUTE)


async def limited(book: Books, kind: str, limit: int) -> dict[str, str]:
    """Make a resource with a limit; return the fields that make a job count against it."""
    catalog = CatalogStore(book.engine)
    match kind:
        case "project":
            return {"project_id": await project(book, max_running_jobs=limit)}
        case "repository":
            url = f"https://example.com/{new_id('r')}.git"
            fields = {"project_id": "default", "url": url, "create_time": NOW, "max_running_jobs": limit}
            made = await catalog.create(REPOSITORIES, Repository(repository_id=new_id("repository"), **fields))  # type: ignore[arg-type]
            return {"repository_id": made.repository_id}
        case _:
            worker = Worker(
                worker_id=new_id("worker"),
                project_id="default",
                display_name="Ada",
                create_time=NOW,
                max_running_jobs=limit,
            )
            return {"worker_id": (await catalog.create(WORKERS, worker)).worker_id}


async def of_kind(book: Books, kind: str, **fields: str) -> str:
    """Admit a job, and set its kind, which need not exist."""
    job_id = (await book.admit(**fields)).spec.job_id
    await set_job(book, job_id, kind=kind)
    return job_id


@pytest.mark.parametrize(
    "kind",
    ["project", pytest.param("repository", marks=pytest.mark.slow), pytest.param("worker", marks=pytest.mark.slow)],
)
async def test_a_limit_holds_however_many_claim_at_once(book: Books, kind: str) -> None:
    """Also when claims are for different kinds of jobs, so that they do not wait for the same row."""
    fields = await limited(book, kind, 2)
    abilities = ["task", "review", "ticket"]
    admitted = [await of_kind(book, ability, **fields) for _ in range(3) for ability in abilities]
    free = await of_kind(book, "free")
    cells = [await book.cell(f"cell-{number}") for number in range(7)]
    done: list[str] = []

    async def take_one(cell: SqlLedger, ability: str) -> Lease | None:
        return await cell.claim(ClaimFilter(kinds=frozenset({ability})))

    for _ in range(9):
        claims = (
            take_one(cell, ability) for cell, ability in zip(cells, [*abilities, *abilities, "free"], strict=True)
        )
        leases = [lease for lease in await asyncio.gather(*claims) if lease is not None]
        limited_ones = [lease for lease in leases if lease.job_id != free]
        assert len(limited_ones) <= 2
        for lease in limited_ones:
            await cells[0].finish(lease, SUCCEEDED)
            done.append(lease.job_id)
    assert sorted(done) == sorted(admitted), "each had its turn, once"
    assert (await book.store.job(free)).state is JobState.RUNNING, "what has no limit is not held up"


@pytest.mark.parametrize("kind", ["project", "repository", "worker"])
async def test_what_waits_for_an_answer_leaves_its_place_to_others(book: Books, kind: str) -> None:
    fields = await limited(book, kind, 1)
    for prompt in ("first", "second"):
        await book.admit(prompt, **fields)
    cell = await book.cell("cell")
    first = await claimed(cell)
    assert await cell.claim() is None
    await park(book, first, 3600)
    second = await claimed(cell)
    await park(book, first, -1)
    assert await cell.claim() is None, "it is awake, and its place is taken"
    await cell.finish(second, SUCCEEDED)
    assert (await claimed(cell)).job_id == first.job_id


async def test_a_lost_job_keeps_its_place(book: Books) -> None:
    fields = await limited(book, "project", 1)
    lost = (await book.admit("lost", **fields)).spec.job_id
    await claimed(await book.cell("cell"))
    await book.admit("more urgent", priority=100, **fields)
    await expire_leases(book)
    other = await book.cell("other")
    assert (await claimed(other)).job_id == lost
    assert await other.claim() is None


async def test_a_limit_that_is_lowered_ends_nothing_and_lets_nothing_in(book: Books) -> None:
    fields = await limited(book, "project", 2)
    for _ in range(4):
        await book.admit(**fields)
    cell = await book.cell("cell")
    leases = await taken(cell)
    assert len(leases) == 2

    def lowered(found: Project) -> Project:
        return Project(project_id=found.project_id, create_time=found.create_time, max_running_jobs=1)

    await CatalogStore(book.engine).update(PROJECTS, fields["project_id"], lowered)
    assert len((await cell.beat(leases)).held) == 2
    await cell.finish(leases[0], SUCCEEDED)
    assert await cell.claim() is None
    await cell.finish(leases[1], SUCCEEDED)
    assert len(await taken(cell)) == 1


async def test_a_project_with_a_long_queue_does_not_hold_up_another(book: Books) -> None:
    busy, small = await project(book), await project(book)
    for _ in range(8):
        job = await book.admit(project_id=busy)
        await make_older(book, job.spec.job_id, 600)
    cell = await book.cell("cell")
    leases = [await claimed(cell) for _ in range(4)]
    assert {lease.spec.project_id for lease in leases} == {busy}
    for _ in range(2):
        await book.admit(project_id=small)
    order = []
    for lease in leases:
        await cell.finish(lease, SUCCEEDED)
        order.append((await claimed(cell)).spec.project_id)
    assert Counter(order) == {small: 2, busy: 2}
    assert order[:2] == [small, small], "whoever has less comes first, however long the other has waited"


async def test_projects_take_turns_where_there_is_one_place(book: Books) -> None:
    projects = [await project(book) for _ in range(3)]
    for project_id in projects:
        for _ in range(3):
            await book.admit(project_id=project_id)
    cell = await book.cell("cell")
    order = []
    for _ in range(9):
        lease = await claimed(cell)
        order.append(lease.spec.project_id)
        await cell.finish(lease, SUCCEEDED)
    assert [sorted(order[start : start + 3]) for start in (0, 3, 6)] == [sorted(projects)] * 3


async def test_priority_counts_between_projects_too(book: Books) -> None:
    first, second = await project(book), await project(book)
    await book.admit("everyday", project_id=first)
    await book.admit("urgent", project_id=second, priority=5)
    cell = await book.cell("cell")
    assert [lease.spec.prompt for lease in await taken(cell)] == ["urgent", "everyday"]


@pytest.mark.slow
@pytest.mark.parametrize("same_project", [True, False], ids=["one project", "two"])
@pytest.mark.parametrize(
    ("minutes", "ageing", "first"), [(3, 60, "urgent"), (7, 60, "old"), (7, 120, "urgent"), (7, 0, "urgent")]
)
async def test_what_waits_long_overtakes_what_is_more_urgent(
    book: Books, minutes: int, ageing: float, first: str, *, same_project: bool
) -> None:
    """For two jobs whose priorities differ by 5."""
    projects = [await project(book), await project(book)]
    old = await book.admit("old", project_id=projects[0])
    urgent = await book.admit("urgent", priority=5, project_id=projects[0 if same_project else 1])
    for job, waits in ((old, minutes), (urgent, 0)):
        turn = turn_of(job.spec.priority, job.create_time, ageing)
        await set_job(book, job.spec.job_id, turn=turn)
        await make_older(book, job.spec.job_id, waits)
    cell = await book.cell("cell", ageing_seconds=ageing)
    assert (await claimed(cell)).spec.prompt == first


async def test_what_is_to_begin_later_has_not_waited_till_then(book: Books) -> None:
    later, waiting = await project(book), await project(book)
    delayed = await book.admit("later", project_id=later)
    await make_older(book, delayed.spec.job_id, 60)
    await set_job(book, delayed.spec.job_id, wake_time=now() - 1)
    earlier = await book.admit("waiting", project_id=waiting)
    await make_older(book, earlier.spec.job_id, 5)
    assert (await claimed(await book.cell("cell"))).spec.prompt == "waiting"
