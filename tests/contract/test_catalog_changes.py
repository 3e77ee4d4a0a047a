"""Changes and deletions in the catalogue on every kind of database: one suite for SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent.settings import AgentSettings, CommandEngine
from services.common.db.paging import Page
from services.common.errors import AlreadyExists, FailedPrecondition, NotFound
from services.gateway.catalog.store import (
    PROJECTS,
    REPOSITORIES,
    TEMPLATES,
    WORK_ITEMS,
    WORKERS,
    CatalogStore,
    ResourceTable,
)
from services.gateway.hooks.store import HookStore
from services.gateway.jobs.retries import Retries
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.catalog import (
    CatalogFilter,
    Document,
    Project,
    Repository,
    Template,
    Worker,
    WorkItem,
    WorkItemState,
)
from services.gateway.values.hooks import Hook, HookEvent
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from tests.kit.ledger import Books, claimed

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
IN = {"project_id": "harbour", "create_time": NOW}

HARBOUR = Project(project_id="harbour", create_time=NOW)
REPOSITORY = Repository(repository_id="repo", url="https://example.com/p", token="hunter2", **IN)
TEMPLATE = Template(template_id="kind", **IN)
WORKER = Worker(worker_id="ann", display_name="Ann", template_id="kind", **IN)
ITEM = WorkItem(
    work_item_id="item", title="Mend it", repository_id="repo", documents=(Document("a.md", "# ⚓\n"),), **IN
)
THINGS: list[tuple[ResourceTable[Any], Any]] = [
    (PROJECTS, HARBOUR),
    (REPOSITORIES, REPOSITORY),
    (TEMPLATES, TEMPLATE),
    (WORKERS, WORKER),
    (WORK_ITEMS, ITEM),
]


@pytest_asyncio.fixture
async def catalog(engine: AsyncEngine) -> CatalogStore:
    store = CatalogStore(engine)
    for kind, thing in THINGS:
        await store.create(kind, thing)
    return store


async def admitted(engine: AsyncEngine) -> tuple[Books, str]:
    """Admit a job of the worker for the work item."""
    books = Books(engine, JobNotifier())
    view = await books.admit(
        project_id="harbour",
        worker_id="ann",
        work_item_id="item",
        agent=AgentSettings(engine=CommandEngine(line="true")),
    )
    return books, view.spec.job_id


CHANGES: list[tuple[ResourceTable[Any], str, dict[str, Any]]] = [
    (PROJECTS, "harbour", {"display_name": "Der Hafen"}),
    (REPOSITORIES, "repo", {"url": "https://example.com/q", "token": ""}),
    (TEMPLATES, "kind", {"agent": AgentSettings(model="m")}),
    (WORKERS, "ann", {"display_name": "Anna", "template_id": ""}),
    (WORK_ITEMS, "item", {"notes": ("a",), "repository_id": "", "documents": (Document("b", ""),)}),
]


@pytest.mark.parametrize(("kind", "thing_id", "fields"), CHANGES, ids=[kind.name for kind, _, _ in CHANGES])
async def test_a_change_changes_what_it_says(
    catalog: CatalogStore, kind: ResourceTable[Any], thing_id: str, fields: dict[str, Any]
) -> None:
    before = await catalog.get(kind, thing_id)
    moved = {"create_time": datetime.now(UTC)} | ({} if kind is PROJECTS else {"project_id": "default"})
    after = await catalog.update(kind, thing_id, lambda thing: replace(thing, **fields, **moved))
    assert after == replace(before, **fields) == await catalog.get(kind, thing_id)
    with pytest.raises(NotFound):
        await catalog.update(kind, "nobody", lambda thing: thing)


async def test_of_many_changes_at_once_none_is_lost(catalog: CatalogStore) -> None:
    def add(number: int) -> Any:
        return catalog.update(WORK_ITEMS, "item", lambda item: replace(item, notes=(*item.notes, str(number))))

    await asyncio.gather(*map(add, range(20)))
    assert set((await catalog.get(WORK_ITEMS, "item")).notes) == set(map(str, range(20)))


async def test_a_change_that_fails_changes_nothing(catalog: CatalogStore) -> None:
    with pytest.raises(NotFound) as caught:
        await catalog.update(WORKERS, "ann", lambda worker: replace(worker, display_name="X", template_id="nobody"))
    assert caught.value.reason == "TEMPLATE_NOT_FOUND"
    assert await catalog.get(WORKERS, "ann") == WORKER


async def test_what_is_deleted_is_found_no_more_and_gives_its_id_away(catalog: CatalogStore) -> None:
    for kind, thing in reversed(THINGS):
        thing_id = kind.id_of(thing)
        for _ in range(2):  # the second time, a retry after a lost answer, must change nothing
            await catalog.delete(kind, thing_id, NOW)
        with pytest.raises(NotFound):
            await catalog.get(kind, thing_id)
        with pytest.raises(NotFound):
            await catalog.update(kind, thing_id, lambda thing: thing)
        wanted = CatalogFilter() if kind is PROJECTS else CatalogFilter(project_id="harbour")
        assert thing not in (await catalog.page(kind, wanted, Page()))[0]
        with pytest.raises(NotFound):
            await catalog.delete(kind, "nobody", NOW)
    for kind, thing in THINGS:
        assert await catalog.create(kind, thing) == thing
        assert await catalog.get(kind, kind.id_of(thing)) == thing
        with pytest.raises(AlreadyExists):
            await catalog.create(kind, thing)


async def test_a_deleted_repository_s_token_is_gone(catalog: CatalogStore, engine: AsyncEngine) -> None:
    await catalog.delete(WORK_ITEMS, "item", NOW)
    await catalog.delete(REPOSITORIES, "repo", NOW)
    async with engine.begin() as connection:
        assert (await REPOSITORIES.get_even_deleted(connection, "repo")).token == ""


async def test_what_was_made_by_a_request_is_its_answer_even_when_it_is_deleted(catalog: CatalogStore) -> None:
    request, lone = IdempotencyKey("r", "m", b"1"), replace(TEMPLATE, template_id="lone")
    await catalog.create(TEMPLATES, lone, request)
    await catalog.delete(TEMPLATES, "lone", NOW)
    assert await catalog.create(TEMPLATES, replace(lone, template_id="other"), request) == lone
    with pytest.raises(NotFound):
        await catalog.get(TEMPLATES, "other")


async def refused(catalog: CatalogStore, kind: ResourceTable[Any], thing_id: str) -> tuple[str, set[str]]:
    """Return the reason why a resource cannot be deleted, and what needs it."""
    with pytest.raises(FailedPrecondition) as caught:
        await catalog.delete(kind, thing_id, NOW)
    assert await catalog.get(kind, thing_id)
    return caught.value.reason, set(caught.value.metadata["needed_by"].split(", "))


async def test_a_job_whose_repository_is_deleted_does_not_begin_again(
    catalog: CatalogStore, engine: AsyncEngine
) -> None:
    books = Books(engine, JobNotifier())
    job_id = (await books.admit(project_id="harbour", repository_id="repo")).spec.job_id
    cell = await books.cell("one")
    await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
    await catalog.delete(WORK_ITEMS, "item", NOW)
    await catalog.delete(REPOSITORIES, "repo", NOW)
    with pytest.raises(NotFound) as caught:
        await Retries(engine, books.notifier).retry(job_id, from_snapshot=False, key=None)
    assert caught.value.reason == "REPOSITORY_NOT_FOUND"
    assert (await books.store.job(job_id)).state is JobState.CANCELLED


async def test_what_the_catalogue_needs_stays(catalog: CatalogStore, engine: AsyncEngine) -> None:
    assert await refused(catalog, TEMPLATES, "kind") == ("TEMPLATE_IN_USE", {"worker ann"})
    assert await refused(catalog, REPOSITORIES, "repo") == ("REPOSITORY_IN_USE", {"work item item"})
    everything = {"repository repo", "template kind", "worker ann", "work item item"}
    assert await refused(catalog, PROJECTS, "harbour") == ("PROJECT_IN_USE", everything)
    for kind, thing in reversed(THINGS[1:]):
        await catalog.delete(kind, kind.id_of(thing), NOW)
    hooks = HookStore(engine)
    await hooks.create(Hook(hook_id="hook", event=HookEvent.PRE, command="true", **IN))
    assert await refused(catalog, PROJECTS, "harbour") == ("PROJECT_IN_USE", {"hook hook"})
    await hooks.delete("hook", NOW)
    await catalog.delete(PROJECTS, "harbour", NOW)


async def test_a_worker_stays_while_a_work_item_names_it(catalog: CatalogStore) -> None:
    await catalog.update(WORK_ITEMS, "item", lambda item: replace(item, worker_id="ann"))
    assert await refused(catalog, WORKERS, "ann") == ("WORKER_IN_USE", {"work item item"})
    await catalog.delete(WORK_ITEMS, "item", NOW)
    await catalog.delete(WORKERS, "ann", NOW)


async def test_what_a_live_job_needs_stays_until_it_has_ended(catalog: CatalogStore, engine: AsyncEngine) -> None:
    books, job_id = await admitted(engine)
    job = {f"job {job_id}"}
    for kind, thing_id, reason, others in [
        (REPOSITORIES, "repo", "REPOSITORY_IN_USE", {"work item item"}),
        (TEMPLATES, "kind", "TEMPLATE_IN_USE", {"worker ann"}),
        (WORKERS, "ann", "WORKER_IN_USE", set()),
        (WORK_ITEMS, "item", "WORK_ITEM_BUSY", set()),
    ]:
        assert await refused(catalog, kind, thing_id) == (reason, job | others)
    with pytest.raises(FailedPrecondition) as caught:
        await catalog.move("item", WorkItemState.DONE)
    assert (caught.value.reason, caught.value.metadata["needed_by"]) == ("WORK_ITEM_BUSY", f"job {job_id}")
    cell = await books.cell("cell")
    await cell.finish(await claimed(cell), Outcome(JobState.SUCCEEDED))
    for kind, thing in reversed(THINGS):
        await catalog.delete(kind, kind.id_of(thing), NOW)
    ended = await books.store.job(job_id)
    assert (ended.spec.worker_id, ended.spec.work_item_id) == ("ann", "item"), "history stays as it was"


async def test_a_work_item_goes_where_a_person_wants_it(catalog: CatalogStore) -> None:
    for state in (WorkItemState.DONE, WorkItemState.DONE, WorkItemState.TODO):
        assert (await catalog.move("item", state)).state is state
        assert (await catalog.get(WORK_ITEMS, "item")).state is state
    with pytest.raises(NotFound):
        await catalog.move("nobody", WorkItemState.DONE)


async def test_an_item_that_is_done_again_stays_where_its_update_found_it(catalog: CatalogStore) -> None:
    await catalog.move("item", WorkItemState.DONE)
    after = await catalog.update(WORK_ITEMS, "item", lambda item: replace(item, title="New", state=WorkItemState.TODO))
    assert (after.title, after.state) == ("New", WorkItemState.DONE)


async def test_a_relation_that_has_gone_keeps_nobody_from_changing_the_rest(catalog: CatalogStore) -> None:
    await catalog.create(WORK_ITEMS, replace(ITEM, work_item_id="other", related_work_item_ids=("item",)))
    await catalog.delete(WORK_ITEMS, "item", NOW)
    changed = await catalog.update(WORK_ITEMS, "other", lambda item: replace(item, title="New"))
    assert changed.related_work_item_ids == ("item",)
    with pytest.raises(NotFound):
        await catalog.update(WORK_ITEMS, "other", lambda item: replace(item, related_work_item_ids=("nobody", "item")))


async def test_of_an_admission_and_a_deletion_at_once_one_wins(catalog: CatalogStore, engine: AsyncEngine) -> None:
    for round_ in range(10):
        worker = replace(WORKER, worker_id=f"w{round_}", template_id="")
        await catalog.create(WORKERS, worker)
        books = Books(engine, JobNotifier())
        admission = books.admit(project_id="harbour", worker_id=worker.worker_id)
        admitted_, deleted = await asyncio.gather(
            admission, catalog.delete(WORKERS, worker.worker_id, NOW), return_exceptions=True
        )
        assert isinstance(admitted_, NotFound) != isinstance(deleted, FailedPrecondition), (admitted_, deleted)
