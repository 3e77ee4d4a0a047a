"""The catalogue in SQL.

`CatalogStore` has the catalogue's own transactions. Who needs something of the catalogue inside of a transaction of
their own asks its `Kind`: `await WORKERS.get(connection, worker_id, project_id)`.
"""

from dataclasses import fields
from typing import Generic, TypeVar

from sqlalchemy import BigInteger, Table, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.paging import Page
from services.common.errors import AlreadyExists, NotFound
from services.gateway import requests
from services.gateway.catalog.model import Filter, Project, Repository, Template, Worker, WorkItem, WorkItemState
from services.gateway.catalog.tables import (
    projects,
    repositories,
    templates,
    work_items,
    workers,
)
from services.gateway.requests import Request
from services.gateway.sql import insert_if_absent, microseconds, read_page

Thing = TypeVar("Thing", Project, Repository, Template, Worker, WorkItem)


class Kind(Generic[Thing]):
    """One kind of thing: what it is called, and where it is kept. All methods work inside the caller's transaction."""

    def __init__(self, name: str, model: type[Thing], table: Table) -> None:
        self.name = name
        self.table = table
        self._model: type[Thing] = model
        self._key = table.primary_key.columns[0]

    def id_of(self, thing: Thing) -> str:
        """Return a thing's id."""
        return str(getattr(thing, self._key.name))

    async def get(self, connection: AsyncConnection, thing_id: str, project_id: str | None = None) -> Thing:
        """Return the one of this id. Raises NotFound, also when `project_id` is given and it belongs to another."""
        row = (await connection.execute(select(self.table).where(self._key == thing_id))).mappings().first()
        if row is None or project_id not in {None, row["project_id"]}:
            raise NotFound(self.name, thing_id)
        return self._model(**row)

    async def add(self, connection: AsyncConnection, thing: Thing) -> None:
        """Keep a thing. Raises AlreadyExists when there is one of its id."""
        values = {field.name: getattr(thing, field.name) for field in fields(thing)}
        if not await insert_if_absent(connection, self.table, values):
            raise AlreadyExists(self.name, self.id_of(thing))

    async def page(self, connection: AsyncConnection, wanted: Filter, page: Page) -> tuple[list[Thing], str]:
        """Return a page of those wanted, the newest first, and the token of the next; shorter where they are large."""
        statement = select(self.table)
        if wanted.project_id:
            statement = statement.where(self.table.c.project_id == wanted.project_id)
        if wanted.url:
            statement = statement.where(self.table.c.url == wanted.url)
        if wanted.states:
            statement = statement.where(self.table.c.state.in_(sorted(wanted.states)))
        key = (type_coerce(self.table.c.create_time, BigInteger), self._key)
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
            earlier = await requests.claim(connection, request, kind.id_of(thing))
            if earlier is not None:
                return await kind.get(connection, earlier)
            await _check_references(connection, thing)
            await kind.add(connection, thing)
            return thing

    async def get(self, kind: Kind[Thing], thing_id: str) -> Thing:
        """Return one thing. Raises NotFound."""
        async with self._engine.begin() as connection:
            return await kind.get(connection, thing_id)

    async def page(self, kind: Kind[Thing], wanted: Filter, page: Page) -> tuple[list[Thing], str]:
        """Return a page of those wanted, the newest first, and the token of the next page."""
        async with self._engine.begin() as connection:
            return await kind.page(connection, wanted, page)


async def set_work_item_state(connection: AsyncConnection, work_item_id: str, state: WorkItemState) -> None:
    """Record where a work item stands, for the job that works on it; a work item that is not there is left alone."""
    statement = update(work_items).where(work_items.c.work_item_id == work_item_id)
    await connection.execute(statement.values(state=state))


async def _check_references(connection: AsyncConnection, thing: Thing) -> None:
    if isinstance(thing, Project):
        return
    await PROJECTS.get(connection, thing.project_id)
    if isinstance(thing, Worker) and thing.template_id:
        await TEMPLATES.get(connection, thing.template_id, thing.project_id)
    if isinstance(thing, WorkItem):
        if thing.repository_id:
            await REPOSITORIES.get(connection, thing.repository_id, thing.project_id)
        for work_item_id in thing.related_work_item_ids:
            await WORK_ITEMS.get(connection, work_item_id, thing.project_id)
