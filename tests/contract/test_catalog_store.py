"""The catalogue, hooks and request ids on every kind of database: one suite for SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent.settings import AgentSettings, CommandEngine
from services.common.db.migrate import migrate
from services.common.db.paging import Page
from services.common.errors import AlreadyExists, Invalid, NotFound
from services.gateway.catalog.store import PROJECTS, REPOSITORIES, TEMPLATES, WORK_ITEMS, WORKERS, CatalogStore
from services.gateway.hooks.store import HookStore
from services.gateway.ledger.hooks import hooks_in_force
from services.gateway.ledger.work_items import set_work_item_state
from services.gateway.schema import idempotency
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.catalog import (
    CatalogFilter,
    Project,
    Repository,
    Template,
    Worker,
    WorkItem,
    WorkItemState,
)
from services.gateway.values.hooks import Hook, HookEvent
from services.lifecycle.model.policy import Policy
from services.lifecycle.model.states import Publish
from services.sandbox.spec import Network

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
AGENT = AgentSettings(
    engine=CommandEngine(line="true"),
    timeout=timedelta(days=6, microseconds=1),
    environment={"A": "ü"},
    network=Network.OPEN,
)
POLICY = Policy(verify_command="", publish=Publish.NONE)

OTHER = Project(project_id="other", display_name="Ein Projekt ⚓", create_time=NOW)
REPOSITORY = Repository(
    repository_id="repo",
    project_id="default",
    url="https://example.com/p",
    default_revision=b"caf\xe9",
    token="hunter2",
    create_time=NOW,
)
TEMPLATE = Template(template_id="kind", project_id="default", agent=AGENT, policy=POLICY, create_time=NOW)
WORKER = Worker(worker_id="ann", project_id="default", display_name="Ann", template_id="kind", create_time=NOW)
LONE_WORKER = replace(WORKER, worker_id="bob", template_id="", agent=AGENT, policy=POLICY)
ITEM = WorkItem(
    work_item_id="item", project_id="default", title="Mend it", notes=("a", ""), repository_id="repo", create_time=NOW
)
RELATED = replace(ITEM, work_item_id="related", related_work_item_ids=("item",), repository_id="")
HOOK = Hook(
    hook_id="hook",
    project_id="default",
    event=HookEvent.PRE,
    command="true",
    timeout=timedelta(microseconds=1),
    create_time=NOW,
)
THINGS = [
    (PROJECTS, OTHER),
    (REPOSITORIES, REPOSITORY),
    (TEMPLATES, TEMPLATE),
    (WORKERS, WORKER),
    (WORKERS, LONE_WORKER),
    (WORK_ITEMS, ITEM),
    (WORK_ITEMS, RELATED),
]


@pytest_asyncio.fixture
async def catalog(engine: AsyncEngine) -> CatalogStore:
    return CatalogStore(engine)


async def test_the_default_project_is_always_there(catalog: CatalogStore, engine: AsyncEngine) -> None:
    await migrate(engine, "services.gateway.migrations")
    assert (await catalog.get(PROJECTS, "default")).create_time > NOW


async def test_everything_comes_back_as_it_was_kept(catalog: CatalogStore) -> None:
    for kind, thing in THINGS:
        assert await catalog.create(kind, thing) == thing
        assert await catalog.get(kind, kind.id_of(thing)) == thing
    for kind, thing in THINGS:
        with pytest.raises(AlreadyExists) as caught:
            await catalog.create(kind, thing)
        assert caught.value.resource_name == kind.id_of(thing)
        assert caught.value.reason.endswith("_EXISTS")
        with pytest.raises(NotFound):
            await catalog.get(kind, "nobody")


async def test_a_token_is_in_no_text_of_the_thing_or_of_an_error(catalog: CatalogStore, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE repositories RENAME TO gone"))
    with pytest.raises(DBAPIError) as caught:
        await catalog.create(REPOSITORIES, REPOSITORY)
    assert "hunter2" not in str(caught.value) + repr(REPOSITORY)


async def test_what_a_thing_names_must_be_there_and_of_its_project(catalog: CatalogStore) -> None:
    for kind, thing in THINGS:
        await catalog.create(kind, thing)
    elsewhere = {"project_id": "other"}
    for kind, thing, missing in [
        (TEMPLATES, replace(TEMPLATE, template_id="x", project_id="nowhere"), ("project", "nowhere")),
        (WORKERS, replace(WORKER, worker_id="x", template_id="nothing"), ("template", "nothing")),
        (WORKERS, replace(WORKER, worker_id="x", **elsewhere), ("template", "kind")),
        (WORK_ITEMS, replace(ITEM, work_item_id="x", **elsewhere), ("repository", "repo")),
        (WORK_ITEMS, replace(RELATED, work_item_id="x", **elsewhere), ("work item", "item")),
        (WORK_ITEMS, replace(RELATED, work_item_id="x", related_work_item_ids=("x",)), ("work item", "x")),
    ]:
        with pytest.raises(NotFound) as caught:
            await catalog.create(kind, thing, IdempotencyKey("r", "m", b"1"))
        assert (caught.value.resource_type, caught.value.resource_name) == missing
        with pytest.raises(NotFound):
            await catalog.get(kind, "x")
    assert await catalog.create(PROJECTS, replace(OTHER, project_id="new"), IdempotencyKey("r", "m", b"2")), (
        "the id is free"
    )


async def test_one_request_makes_one_thing(catalog: CatalogStore) -> None:
    first = await catalog.create(REPOSITORIES, REPOSITORY, IdempotencyKey("r", "m", b"1"))
    again = replace(REPOSITORY, repository_id="made-anew", create_time=NOW + timedelta(days=1))
    assert await catalog.create(REPOSITORIES, again, IdempotencyKey("r", "m", b"1")) == first
    for other in (IdempotencyKey("r", "m", b"2"), IdempotencyKey("r", "other", b"1")):
        with pytest.raises(AlreadyExists) as caught:
            await catalog.create(REPOSITORIES, again, other)
        assert caught.value.reason == "REQUEST_ID_REUSED"
    assert (await catalog.page(REPOSITORIES, CatalogFilter(), Page()))[0] == [first]


async def test_two_projects_may_use_the_same_request_id(catalog: CatalogStore) -> None:
    await catalog.create(PROJECTS, OTHER)
    first = await catalog.create(REPOSITORIES, REPOSITORY, IdempotencyKey("r", "m", b"1"))
    elsewhere = replace(REPOSITORY, repository_id="elsewhere", project_id=OTHER.project_id)
    assert await catalog.create(REPOSITORIES, elsewhere, IdempotencyKey("r", "m", b"2")) == elsewhere
    assert await catalog.create(REPOSITORIES, REPOSITORY, IdempotencyKey("r", "m", b"1")) == first


async def test_a_request_that_an_earlier_version_stored_is_recognized(
    catalog: CatalogStore, engine: AsyncEngine
) -> None:
    stored = {"request_id": "r", "method": "m", "digest": b"1", "reference": "repo", "create_time": NOW}
    async with engine.begin() as connection:
        await connection.execute(insert(idempotency.request_ids).values(stored))
    first = await catalog.create(REPOSITORIES, REPOSITORY)
    again = replace(REPOSITORY, repository_id="made-anew", url="https://example.com/anew")
    assert await catalog.create(REPOSITORIES, again, IdempotencyKey("r", "m", b"1")) == first
    assert await catalog.create(REPOSITORIES, again, IdempotencyKey("r", "m", b"2")) == again, "of whichever project"


async def test_of_the_same_request_made_at_once_one_wins(catalog: CatalogStore) -> None:
    attempts = [
        catalog.create(PROJECTS, replace(OTHER, project_id=f"p{number}"), IdempotencyKey("r", "m", b"1"))
        for number in range(12)
    ]
    made = await asyncio.gather(*attempts)
    assert len({project.project_id for project in made}) == 1
    assert len((await catalog.page(PROJECTS, CatalogFilter(), Page()))[0]) == 2


async def test_a_failed_first_attempt_leaves_the_id_to_the_second(catalog: CatalogStore, engine: AsyncEngine) -> None:
    request = IdempotencyKey("r", "m", b"1")
    claimed, let_fail = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with engine.begin() as connection:
            assert await idempotency.claim(connection, request, idempotency.NO_PROJECT, "never") is None
            claimed.set()
            await let_fail.wait()
            raise RuntimeError("the first attempt fails")

    failing = asyncio.create_task(first())
    await claimed.wait()
    second = asyncio.create_task(catalog.create(PROJECTS, OTHER, request))
    let_fail.set()
    with pytest.raises(RuntimeError):
        await failing
    assert await second == OTHER


async def test_old_request_ids_are_forgotten(engine: AsyncEngine) -> None:
    request = IdempotencyKey("r", "m", b"1")
    async with engine.begin() as connection:
        assert await idempotency.claim(connection, request, "p", "one") is None
        assert await idempotency.remove_expired(connection, datetime.now(UTC) - idempotency.RETENTION) == 0
        assert await idempotency.claim(connection, request, "p", "two") == "one"
        assert await idempotency.remove_expired(connection, datetime.now(UTC) + timedelta(seconds=1)) == 1
        assert await idempotency.claim(connection, request, "p", "two") is None


async def test_filters(catalog: CatalogStore, engine: AsyncEngine) -> None:
    for kind, thing in THINGS:
        await catalog.create(kind, thing)
    async with engine.begin() as connection:
        await set_work_item_state(connection, "item", WorkItemState.REVIEW)
    for kind, wanted, found in [
        (WORKERS, CatalogFilter(project_id="default"), {"ann", "bob"}),
        (WORKERS, CatalogFilter(project_id="other"), set()),
        (REPOSITORIES, CatalogFilter(url="https://example.com/p"), {"repo"}),
        (REPOSITORIES, CatalogFilter(url="https://example.com"), set()),
        (REPOSITORIES, CatalogFilter(url="https://example.com/p", project_id="other"), set()),
        (WORK_ITEMS, CatalogFilter(states=frozenset({WorkItemState.REVIEW})), {"item"}),
        (WORK_ITEMS, CatalogFilter(states=frozenset({WorkItemState.TODO, WorkItemState.REVIEW})), {"item", "related"}),
    ]:
        page, token = await catalog.page(kind, wanted, Page())
        assert ({kind.id_of(thing) for thing in page}, token) == (found, "")
    with pytest.raises(Invalid):
        await catalog.page(WORKERS, CatalogFilter(), Page(after=("one",)))


async def test_hooks_are_called_in_order_and_go_when_they_are_removed(engine: AsyncEngine) -> None:
    await CatalogStore(engine).create(PROJECTS, OTHER)
    store = HookStore(engine)
    later = replace(HOOK, hook_id="later", create_time=NOW + timedelta(microseconds=1))
    first = replace(HOOK, hook_id="first", order=-(2**31), create_time=NOW + timedelta(days=1))
    for hook in (later, HOOK, first, replace(HOOK, hook_id="elsewhere", project_id="other")):
        assert await store.create(hook) == hook
    with pytest.raises(NotFound):
        await store.create(replace(HOOK, hook_id="x", project_id="nowhere"))

    async def called() -> list[Hook]:
        async with engine.begin() as connection:
            return list(await hooks_in_force(connection, "default"))

    assert await called() == [first, HOOK, later]
    found, token = await store.page("", Page.parse(3, ""))
    assert {hook.hook_id for hook in found} <= {"first", "hook", "elsewhere"}
    assert [hook.hook_id for hook in (await store.page("", Page.parse(3, token)))[0]] == ["later"]
    await store.delete("hook", NOW)
    await store.delete("hook", NOW + timedelta(days=1))
    assert await called() == [first, later]
    with pytest.raises(NotFound):
        await store.delete("nobody", NOW)


async def test_a_request_answers_with_its_hook_even_when_that_is_removed(engine: AsyncEngine) -> None:
    store = HookStore(engine)
    request = IdempotencyKey("r", "m", b"1")
    await store.create(HOOK, request)
    await store.delete("hook", NOW)
    again = await store.create(replace(HOOK, hook_id="new"), request)
    assert again == replace(HOOK, remove_time=NOW)
    assert (await store.page("", Page()))[0] == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 4),
    times=st.lists(st.integers(0, 3), max_size=8),
    changes=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6),
)
async def test_pages_stay_right_while_rows_come_and_go(
    engine: AsyncEngine, size: int, times: list[int], changes: list[tuple[int, bool]]
) -> None:
    """What exists from the first page to the last is listed once, in order, whatever is made or deleted in between."""
    catalog = CatalogStore(engine)

    def template(name: str, number: int) -> Template:
        time = NOW + timedelta(microseconds=number)  # many have the same time
        return replace(TEMPLATE, template_id=name, create_time=time)

    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM templates"))
    stays = {f"t{index}": template(f"t{index}", number) for index, number in enumerate(times)}
    for each in stays.values():
        await catalog.create(TEMPLATES, each)

    listed: list[Template] = []
    token = ""
    pending = list(enumerate(changes))
    while True:
        page, token = await catalog.page(TEMPLATES, CatalogFilter(project_id="default"), Page.parse(size, token))
        listed += page
        if not token:
            break
        assert len(page) == size
        if pending:
            index, (number, goes) = pending.pop(0)
            if goes and listed:
                gone = listed[-1].template_id  # the row that the token points at
                stays.pop(gone, None)
                async with engine.begin() as connection:
                    await connection.execute(text("DELETE FROM templates WHERE template_id = :id"), {"id": gone})
            else:
                await catalog.create(TEMPLATES, template(f"new{index}", number))

    keys = [(each.create_time, each.template_id) for each in listed]
    assert keys == sorted(set(keys), reverse=True)
    assert set(stays) <= {each.template_id for each in listed}


async def test_a_work_item_of_the_version_before_has_no_settings(catalog: CatalogStore, engine: AsyncEngine) -> None:
    values = {"work_item_id": "old", "project_id": "default", "title": "It leaks", "description": "", "state": "TODO"}
    lists = dict.fromkeys(("notes", "related_work_item_ids", "documents"), "[]")
    row = {**values, **lists, "create_time": 0}
    columns = ", ".join(row)
    async with engine.begin() as connection:
        placeholders = ", ".join(f":{name}" for name in row)
        await connection.execute(text(f"INSERT INTO work_items ({columns}) VALUES ({placeholders})"), row)
    item = await catalog.get(WORK_ITEMS, "old")
    assert (item.agent, item.policy) == (AgentSettings(), Policy())


async def test_a_url_is_one_repository_of_a_project_and_the_oldest_is_found_first(
    catalog: CatalogStore, engine: AsyncEngine
) -> None:
    fields = {"project_id": "default", "create_time": datetime(2026, 1, 1, tzinfo=UTC)}
    await catalog.create(REPOSITORIES, Repository(repository_id="first", url="https://example.com/a%b_c.git", **fields))
    for again in ("https://EXAMPLE.com/a%b_c", "https://example.com:443/a%b_c/"):
        with pytest.raises(AlreadyExists, match="first"):
            await catalog.create(REPOSITORIES, Repository(repository_id="second", url=again, **fields))
    other = Repository(repository_id="second", url="https://example.com/aXb_c", **fields)
    await catalog.create(REPOSITORIES, other)
    with pytest.raises(AlreadyExists, match="first"):
        await catalog.update(REPOSITORIES, "second", lambda each: replace(each, url="https://example.com/a%b_c"))
    renamed = await catalog.update(REPOSITORIES, "first", lambda each: replace(each, url="https://example.com/a%b_c"))
    assert renamed.url == "https://example.com/a%b_c", "its own"
    async with engine.begin() as connection:  # as an earlier version has made it
        late = Repository(repository_id="dup", url="https://example.com/a%b_c.git", **fields)
        await REPOSITORIES.add(connection, replace(late, create_time=datetime(2026, 2, 1, tzinfo=UTC)))
    page = Page.parse(10, "", {})
    found, _ = await catalog.page(REPOSITORIES, CatalogFilter(url="https://Example.com/a%b_c/"), page)
    assert [each.repository_id for each in found] == ["first", "dup"]
    await catalog.update(REPOSITORIES, "dup", lambda each: replace(each, token="t"))
    await catalog.delete(REPOSITORIES, "first", datetime.now(UTC))
    await catalog.delete(REPOSITORIES, "dup", datetime.now(UTC))
    await catalog.create(REPOSITORIES, Repository(repository_id="third", url="https://example.com/a%b_c", **fields))


async def test_of_many_repositories_that_are_made_at_once_with_one_url_there_is_one(engine: AsyncEngine) -> None:
    store = CatalogStore(engine)
    urls = ["https://example.com/new", "https://EXAMPLE.com/new.git", "https://example.com:443/new/"] * 3
    made = await asyncio.gather(
        *(
            store.create(REPOSITORIES, replace(REPOSITORY, repository_id=f"new-{number}", url=url))
            for number, url in enumerate(urls)
        ),
        return_exceptions=True,
    )
    refused = [each for each in made if not isinstance(each, Repository)]
    assert len(made) - len(refused) == 1, refused
    assert {getattr(each, "reason", each) for each in refused} == {"REPOSITORY_EXISTS"}
    (listed,) = (await store.page(REPOSITORIES, CatalogFilter(project_id="default", url=urls[0]), Page()))[0]
    assert listed in made
