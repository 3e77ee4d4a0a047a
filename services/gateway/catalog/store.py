"""The catalogue in SQL.

`CatalogStore` runs the catalogue's own transactions. Code that needs a resource inside its own transaction asks the
`ResourceTable`: `await WORKERS.get(connection, worker_id, project_id)`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from sqlalchemy import Column, ColumnElement, Select, Table, bindparam, case, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.agent.settings import names_only
from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Key, Page
from services.common.errors import AlreadyExists, NotFound
from services.gateway import scope
from services.gateway.catalog.remotes import normal_form
from services.gateway.catalog.uses import check_unused
from services.gateway.ledger.gates import open_gates
from services.gateway.schema import idempotency
from services.gateway.schema.budgets import budgets
from services.gateway.schema.catalog import projects, providers, repositories, templates, work_items, workers
from services.gateway.schema.idempotency import NO_PROJECT, IdempotencyKey
from services.gateway.schema.ownership import Ownership, owned
from services.gateway.schema.sql import insert_if_absent, read_page
from services.gateway.values.budgets import Budget
from services.gateway.values.catalog import (
    CatalogFilter,
    Project,
    Provider,
    Repository,
    Template,
    Worker,
    WorkItem,
    WorkItemState,
)

Resource = TypeVar("Resource", Budget, Project, Provider, Repository, Template, Worker, WorkItem)
Hold = Literal["share", "change"]

_NO_SECRETS: Final[Mapping[str, Any]] = {"token": "", "keys": (), "secrets": {}}
"""What is left of a resource's secrets when it is deleted."""
_IMMUTABLE = ("project_id", "create_time", "state")
"""The fields, besides the id, that an update does not change."""


class ResourceTable(Generic[Resource]):
    """The name and the table of one type of resource. All methods work inside the caller's transaction."""

    def __init__(self, name: str, model: type[Resource], table: Table) -> None:
        self.name = name
        self.table = table
        self._model: type[Resource] = model
        self._key = table.primary_key.columns[0]
        self._columns = [table.c[field.name] for field in fields(model)]
        self._keeps_secrets_apart = "agent" in table.c
        self._is_ordered = "order" in table.c
        if self._keeps_secrets_apart:
            self._columns.append(table.c.secrets)
        self._is_present = table.c.delete_time.is_(None)
        one = select(*self._columns).where(self._key == bindparam("this"), self._is_present)
        self._one: Mapping[Hold | None, Select[Any]] = {
            None: one,
            "share": one.with_for_update(read=True),
            "change": one.with_for_update(),
        }

    def _read(self, **row: Any) -> Resource:  # noqa: ANN401 - the row's values
        if self._keeps_secrets_apart:
            row["agent"] = replace(row["agent"], secrets=row.pop("secrets"))
        return self._model(**row)

    def id_of(self, resource: Resource) -> str:
        """Return a resource's id."""
        return str(getattr(resource, self._key.name))

    async def get(
        self, connection: AsyncConnection, resource_id: str, project_id: str | None = None, *, hold: Hold | None = None
    ) -> Resource:
        """Return the resource with this id. Raises NotFound, also when it is not in `project_id`, where that is given.

        `hold` locks the row until the transaction ends: "share" keeps it from being changed or deleted, while others
        may share it; "change" excludes others.
        """
        row = (await connection.execute(self._one[hold], {"this": resource_id})).mappings().first()
        if row is None or project_id not in {None, row["project_id"]}:
            raise NotFound(self.name, resource_id)
        return self._read(**row)

    async def get_even_deleted(self, connection: AsyncConnection, resource_id: str) -> Resource:
        """Return the resource with this id, deleted or not; it must have existed."""
        row = await connection.execute(select(*self._columns).where(self._key == resource_id))
        return self._read(**row.mappings().one())

    async def add(self, connection: AsyncConnection, resource: Resource) -> None:
        """Insert a resource. Raises AlreadyExists when its id is in use; the id of a deleted resource is free again."""
        values = _row(resource)
        if await insert_if_absent(connection, self.table, values):
            return
        reuse = update(self.table).where(self._key == self.id_of(resource), self.table.c.delete_time.is_not(None))
        if (await connection.execute(reuse.values(values | {"delete_time": None}))).rowcount == 0:
            raise AlreadyExists(self.name, self.id_of(resource))

    async def change(self, connection: AsyncConnection, resource: Resource) -> None:
        """Overwrite a resource that exists."""
        await connection.execute(update(self.table).where(self._key == self.id_of(resource)).values(_row(resource)))

    async def delete(self, connection: AsyncConnection, resource_id: str, now: datetime) -> None:
        """Delete a resource; deleting it again does nothing.

        Raises NotFound when it never existed, FailedPrecondition while something needs it.
        """
        query = select(self.table.c.delete_time).where(self._key == resource_id).with_for_update()
        row = (await connection.execute(query)).first()
        if row is None:
            raise NotFound(self.name, resource_id)
        if row.delete_time is None:
            await check_unused(connection, self.name, resource_id)
            cleared = {name: nothing for name, nothing in _NO_SECRETS.items() if name in self.table.c}
            deletion = update(self.table).where(self._key == resource_id)
            await connection.execute(deletion.values({"delete_time": now, **cleared}))

    async def page(self, connection: AsyncConnection, filters: CatalogFilter, page: Page) -> tuple[list[Resource], str]:
        """Return a page of resources that match, the newest first, and the next page's token.

        The page is shorter where resources are large. Of one URL, the oldest repository is first. What belongs to no
        project is of all of them.
        """
        statement = select(*self._columns).where(self._is_present, *self._within(filters))
        if filters.url:
            same = await ids_of_url(connection, filters.url, filters.project_id)
            statement = statement.where(self.table.c.repository_id.in_(same))
        if filters.states:
            statement = statement.where(self.table.c.state.in_(sorted(filters.states)))
        ordered = page.select(statement, self._order(), descending=not (filters.url or self._is_ordered))
        return await read_page(connection, ordered, page, self._read, self._place)

    def _within(self, filters: CatalogFilter) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions that a resource is of the projects that are asked for, and that the caller may see."""
        project_id: Column[str] = self.table.c.project_id
        asked: list[ColumnElement[bool]] = [project_id == filters.project_id] if filters.project_id else []
        for condition in [*scope.within(project_id), *asked]:
            yield or_(condition, project_id.is_(None)) if project_id.nullable else condition

    def _order(self) -> tuple[ColumnElement[Any], ...]:
        """Return what the resources of a list are ordered by."""
        age: tuple[ColumnElement[Any], ...] = (as_number(self.table.c.create_time), self._key)
        if not self._is_ordered:
            return age
        return (case((self.table.c.project_id.is_(None), 1), else_=0), self.table.c.order, *age)

    def _place(self, resource: Any) -> Key:  # noqa: ANN401 - a generic class knows no field but those of all types
        """Return a resource's place in that order."""
        age: Key = (microseconds(resource.create_time), self.id_of(resource))
        return (int(not resource.project_id), resource.order, *age) if self._is_ordered else age


PROJECTS = ResourceTable("project", Project, projects)
REPOSITORIES = ResourceTable("repository", Repository, repositories)
PROVIDERS = ResourceTable("provider", Provider, providers)
TEMPLATES = ResourceTable("template", Template, templates)
WORKERS = ResourceTable("worker", Worker, workers)
WORK_ITEMS = ResourceTable("work item", WorkItem, work_items)
BUDGETS = ResourceTable("budget", Budget, budgets)

OWNERS: Final[Mapping[str, Ownership]] = {
    each.name.replace(" ", "_"): owned(each.table, is_deletable=True)
    for each in (REPOSITORIES, PROVIDERS, TEMPLATES, WORKERS, WORK_ITEMS)
}
"""How to look up which project owns a resource."""


class CatalogStore:
    """Reads and writes the catalogue. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(
        self, table: ResourceTable[Resource], resource: Resource, key: IdempotencyKey | None = None
    ) -> Resource:
        """Store a resource and return it; for a repeated request, return what the first one created.

        Raises NotFound for a reference to something that is not in its project, AlreadyExists (`<KIND>_EXISTS`,
        REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await idempotency.claim(connection, key, _namespace(resource), table.id_of(resource))
            if earlier is not None:
                return await table.get_even_deleted(connection, earlier)
            if isinstance(resource, Repository):
                await _check_url(connection, resource)
            await _check_references(connection, resource)
            await table.add(connection, resource)
            return resource

    async def get(self, table: ResourceTable[Resource], resource_id: str) -> Resource:
        """Return one resource. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await table.get(connection, resource_id)

    async def update(
        self, table: ResourceTable[Resource], resource_id: str, change: Callable[[Resource], Resource]
    ) -> Resource:
        """Apply `change` to a resource and return it; its id, project, creation time and state stay as they are.

        Raises NotFound, also for a new reference, and whatever `change` raises.
        """
        async with self._engine.begin() as connection:
            before = await table.get(connection, resource_id, hold="change")
            immutable = {name: getattr(before, name) for name in _IMMUTABLE if hasattr(before, name)}
            resource: Resource = replace(change(before), **immutable)
            if isinstance(resource, Repository) and normal_form(resource.url) != normal_form(before.url):
                await _check_url(connection, resource)
            await _check_references(connection, resource, before)
            await table.change(connection, resource)
            if isinstance(resource, Provider) and isinstance(before, Provider) and _asks_others(before, resource):
                await open_gates(connection, resource_id)
            return resource

    async def delete(self, table: ResourceTable[Resource], resource_id: str, now: datetime) -> None:
        """Delete a resource; deleting it again does nothing.

        Raises NotFound when it never existed, and FailedPrecondition (`<KIND>_IN_USE`, WORK_ITEM_BUSY), which lists
        what needs it.
        """
        async with self._engine.begin() as connection:
            await table.delete(connection, resource_id, now)
            if table is PROVIDERS:
                await open_gates(connection, resource_id)

    async def move(self, work_item_id: str, state: WorkItemState) -> WorkItem:
        """Set a work item's state. Raises NotFound, FailedPrecondition (WORK_ITEM_BUSY) while a job works on it."""
        async with self._engine.begin() as connection:
            before = await WORK_ITEMS.get(connection, work_item_id, hold="change")
            await check_unused(connection, WORK_ITEMS.name, work_item_id)
            moved = replace(before, state=state)
            await WORK_ITEMS.change(connection, moved)
            return moved

    async def page(
        self, table: ResourceTable[Resource], filters: CatalogFilter, page: Page
    ) -> tuple[list[Resource], str]:
        """Return a page of resources that match, the newest first, and the next page's token."""
        async with self._engine.begin() as connection:
            return await table.page(connection, filters, page)


def _asks_others(before: Provider, after: Provider) -> bool:
    """True when requests go elsewhere, or with other keys: who wanted to be left alone is not asked any more."""
    return (before.base_url, before.keys) != (after.base_url, after.keys)


async def _check_references(connection: AsyncConnection, resource: Resource, before: Resource | None = None) -> None:
    """Raise NotFound for a missing reference, unless the resource had it before: its target may have been deleted."""
    if not isinstance(resource, Project) and resource.project_id:
        await PROJECTS.get(connection, resource.project_id, hold="share")
    known = set() if before is None else set(_references(before))
    for table, resource_id in _references(resource):
        if resource_id and (table, resource_id) not in known:
            await table.get(connection, resource_id, resource.project_id, hold="share")


async def ids_of_url(connection: AsyncConnection, url: str, project_id: str = "") -> list[str]:
    """Return the ids of a project's repositories, or of all, with a URL, however it is written; the oldest first."""
    wanted = normal_form(url)
    columns = repositories.c
    likely = columns.url.contains(wanted.rpartition("/")[2], autoescape=True)
    query = select(columns.repository_id, columns.url).where(columns.delete_time.is_(None), likely)
    if project_id:
        query = query.where(columns.project_id == project_id)
    rows = await connection.execute(query.order_by(columns.create_time, columns.repository_id))
    return [row.repository_id for row in rows if normal_form(row.url) == wanted]


async def _check_url(connection: AsyncConnection, repository: Repository) -> None:
    """Raise AlreadyExists (REPOSITORY_EXISTS) when another repository of the project has the URL.

    Its project's row is locked, so that of two that are made at once the second sees the first. Nothing may have locked
    it for reading before: of two that had, neither could go on.
    """
    await PROJECTS.get(connection, repository.project_id, hold="change")
    for known in await ids_of_url(connection, repository.url, repository.project_id):
        if known != repository.repository_id:
            message = f"the project has a repository with this URL already: {known}"
            raise AlreadyExists("repository", known, message=message)


def _references(resource: Resource) -> list[tuple[ResourceTable[Any], str]]:
    """Return a resource's references, besides its project; an empty id refers to nothing."""
    match resource:
        case Project():
            return [(WORKERS, resource.default_worker_id)]
        case Budget():
            return [(WORKERS, resource.worker_id)]
        case Worker():
            return [(TEMPLATES, resource.template_id)]
        case WorkItem():
            return [
                (REPOSITORIES, resource.repository_id),
                (WORKERS, resource.worker_id),
                (TEMPLATES, resource.template_id),
                *((WORK_ITEMS, related) for related in resource.related_work_item_ids),
            ]
        case _:
            return []


def _namespace(resource: Resource) -> str:
    """Return where the request ids belong by which such a resource is created."""
    return NO_PROJECT if isinstance(resource, Project) else resource.project_id


def _row(resource: Resource) -> dict[str, Any]:
    row = {field.name: getattr(resource, field.name) for field in fields(resource)}
    agent = row.get("agent")
    if agent is not None:
        row |= {"agent": replace(agent, secrets=names_only(agent.secrets)), "secrets": agent.secrets}
    return row
