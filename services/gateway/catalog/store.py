"""The catalogue in SQL.

`CatalogStore` has the catalogue's own transactions. Who needs something of the catalogue inside of a transaction of
their own asks its `Kind`: `await WORKERS.get(connection, worker_id, project_id)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from sqlalchemy import Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, microseconds
from services.common.db.paging import Page
from services.common.errors import AlreadyExists, NotFound
from services.gateway import scope
from services.gateway.catalog.uses import check_unused
from services.gateway.schema import idempotency
from services.gateway.schema.catalog import projects, repositories, templates, work_items, workers
from services.gateway.schema.idempotency import Request
from services.gateway.schema.ownership import Ownership, owned
from services.gateway.schema.sql import insert_if_absent, read_page
from services.gateway.values.catalog import Filter, Project, Repository, Template, Worker, WorkItem, WorkItemState

Thing = TypeVar("Thing", Project, Repository, Template, Worker, WorkItem)
Hold = Literal["share", "change"]

OWNERS: Final[Mapping[str, Ownership]] = {
    "repository": owned(repositories, is_deletable=True),
    "template": owned(templates, is_deletable=True),
    "worker": owned(workers, is_deletable=True),
    "work_item": owned(work_items, is_deletable=True),
}
"""Whose the catalogue's things are."""

_FIXED = ("project_id", "create_time", "state")
"""What an update leaves as it is, beside the id."""


class Kind(Generic[Thing]):
    """One kind of thing: what it is called, and where it is kept. All methods work inside the caller's transaction."""

    def __init__(self, name: str, model: type[Thing], table: Table) -> None:
        self.name = name
        self.table = table
        self._model: type[Thing] = model
        self._key = table.primary_key.columns[0]
        self._columns = [table.c[field.name] for field in fields(model)]
        self._there = table.c.delete_time.is_(None)

    def id_of(self, thing: Thing) -> str:
        """Return a thing's id."""
        return str(getattr(thing, self._key.name))

    async def get(
        self, connection: AsyncConnection, thing_id: str, project_id: str | None = None, *, hold: Hold | None = None
    ) -> Thing:
        """Return the one of this id. Raises NotFound, also when `project_id` is given and it belongs to another.

        `hold` keeps it there until the transaction's end: "share" with others who need it, "change" from them.
        """
        statement = select(*self._columns).where(self._key == thing_id, self._there)
        if hold is not None:
            statement = statement.with_for_update(read=hold == "share")
        row = (await connection.execute(statement)).mappings().first()
        if row is None or project_id not in {None, row["project_id"]}:
            raise NotFound(self.name, thing_id)
        return self._model(**row)

    async def made(self, connection: AsyncConnection, thing_id: str) -> Thing:
        """Return what an earlier request made, deleted or not."""
        row = await connection.execute(select(*self._columns).where(self._key == thing_id))
        return self._model(**row.mappings().one())

    async def add(self, connection: AsyncConnection, thing: Thing) -> None:
        """Keep a thing. Raises AlreadyExists when there is one of its id; one that is deleted gives its id away."""
        values = _values(thing)
        if await insert_if_absent(connection, self.table, values):
            return
        deleted = update(self.table).where(self._key == self.id_of(thing), self.table.c.delete_time.is_not(None))
        if (await connection.execute(deleted.values(values | {"delete_time": None}))).rowcount == 0:
            raise AlreadyExists(self.name, self.id_of(thing))

    async def change(self, connection: AsyncConnection, thing: Thing) -> None:
        """Keep a thing, that is there, as it now is."""
        await connection.execute(update(self.table).where(self._key == self.id_of(thing)).values(_values(thing)))

    async def delete(self, connection: AsyncConnection, thing_id: str, now: datetime) -> None:
        """Delete a thing; once more does nothing. Raises NotFound when there never was one, FailedPrecondition."""
        known = select(self.table.c.delete_time).where(self._key == thing_id).with_for_update()
        row = (await connection.execute(known)).first()
        if row is None:
            raise NotFound(self.name, thing_id)
        if row.delete_time is None:
            await check_unused(connection, self.name, thing_id)
            secrets = {"token": ""} if "token" in self.table.c else {}
            gone = update(self.table).where(self._key == thing_id)
            await connection.execute(gone.values({"delete_time": now, **secrets}))

    async def page(self, connection: AsyncConnection, wanted: Filter, page: Page) -> tuple[list[Thing], str]:
        """Return a page of those wanted, the newest first, and the token of the next; shorter where they are large."""
        statement = select(*self._columns).where(self._there, *scope.within(self.table.c.project_id))
        if wanted.project_id:
            statement = statement.where(self.table.c.project_id == wanted.project_id)
        if wanted.url:
            statement = statement.where(self.table.c.url == wanted.url)
        if wanted.states:
            statement = statement.where(self.table.c.state.in_(sorted(wanted.states)))
        key = (as_number(self.table.c.create_time), self._key)
        ordered = page.select(statement, key, descending=True)
        return await read_page(
            connection, ordered, page, self._model, lambda thing: (microseconds(thing.create_time), self.id_of(thing))
        )


PROJECTS = Kind("project", Project, projects)
REPOSITORIES = Kind("repository", Repository, repositories)
TEMPLATES = Kind("template", Template, templates)
WORKERS = Kind("worker", Worker, workers)
WORK_ITEMS = Kind("work item", WorkItem, work_items)


class CatalogStore:
    """Knows the catalogue. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, kind: Kind[Thing], thing: Thing, request: Request | None = None) -> Thing:
        """Keep a thing and return it; for a request that was made before, return what that one made.

        Raises NotFound for whatever it names that is not in its project, AlreadyExists (`<KIND>_EXISTS`,
        REQUEST_ID_REUSED).
        """
        async with self._engine.begin() as connection:
            earlier = await idempotency.claim(connection, request, kind.id_of(thing))
            if earlier is not None:
                return await kind.made(connection, earlier)
            await _check_references(connection, thing)
            await kind.add(connection, thing)
            return thing

    async def get(self, kind: Kind[Thing], thing_id: str) -> Thing:
        """Return one thing. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await kind.get(connection, thing_id)

    async def update(self, kind: Kind[Thing], thing_id: str, change: Callable[[Thing], Thing]) -> Thing:
        """Change a thing by `change`, and return it; its id, project, times and state stay as they are.

        Raises NotFound, also for what it newly names, and whatever `change` raises.
        """
        async with self._engine.begin() as connection:
            before = await kind.get(connection, thing_id, hold="change")
            fixed = {name: getattr(before, name) for name in _FIXED if hasattr(before, name)}
            thing: Thing = replace(change(before), **fixed)
            await _check_references(connection, thing, before)
            await kind.change(connection, thing)
            return thing

    async def delete(self, kind: Kind[Thing], thing_id: str, now: datetime) -> None:
        """Delete a thing; once more does nothing.

        Raises NotFound when there never was one, and with what needs it FailedPrecondition (`<KIND>_IN_USE`,
        WORK_ITEM_BUSY).
        """
        async with self._engine.begin() as connection:
            await kind.delete(connection, thing_id, now)

    async def move(self, work_item_id: str, state: WorkItemState) -> WorkItem:
        """Put a work item in a state. Raises NotFound, FailedPrecondition (WORK_ITEM_BUSY) while a job works on it."""
        async with self._engine.begin() as connection:
            before = await WORK_ITEMS.get(connection, work_item_id, hold="change")
            await check_unused(connection, WORK_ITEMS.name, work_item_id)
            moved = replace(before, state=state)
            await WORK_ITEMS.change(connection, moved)
            return moved

    async def page(self, kind: Kind[Thing], wanted: Filter, page: Page) -> tuple[list[Thing], str]:
        """Return a page of those wanted, the newest first, and the token of the next page."""
        async with self._engine.begin() as connection:
            return await kind.page(connection, wanted, page)


async def _check_references(connection: AsyncConnection, thing: Thing, before: Thing | None = None) -> None:
    """Look up what a thing names, but for what it named before: that may have gone."""
    if not isinstance(thing, Project):
        await PROJECTS.get(connection, thing.project_id, hold="share")
    known = set() if before is None else set(_named(before))
    for kind, thing_id in _named(thing):
        if thing_id and (kind, thing_id) not in known:
            await kind.get(connection, thing_id, thing.project_id, hold="share")


def _named(thing: Thing) -> list[tuple[Kind[Any], str]]:
    """Return what a thing names, beside its project; empty ids name nothing."""
    match thing:
        case Project():
            return [(WORKERS, thing.default_worker_id)]
        case Worker():
            return [(TEMPLATES, thing.template_id)]
        case WorkItem():
            return [
                (REPOSITORIES, thing.repository_id),
                (WORKERS, thing.worker_id),
                (TEMPLATES, thing.template_id),
                *((WORK_ITEMS, related) for related in thing.related_work_item_ids),
            ]
        case _:
            return []


def _values(thing: Thing) -> dict[str, Any]:
    return {field.name: getattr(thing, field.name) for field in fields(thing)}
