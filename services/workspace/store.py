"""The records of workspaces, in SQLite beside them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import Moment, as_number, microseconds
from services.common.db.commit_events import publish_on_commit
from services.common.db.fences import fence_table
from services.common.db.paging import Page
from services.workspace.model import SETTABLE_STATES, Filter, Labels, State, Visibility, Workspace

metadata = MetaData()
fences = fence_table(metadata)
workspaces = Table(
    "workspaces",
    metadata,
    Column("workspace_id", String(63), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("driver", String(16), nullable=False),
    # Paths need not be UTF-8. They are joined by NUL, which no path contains; empty without any.
    Column("base_layers", LargeBinary, nullable=False),
    Column("pins_path", LargeBinary, nullable=True),
    Column("visibility", String(16), nullable=False),
    Column("project_id", String(63), nullable=False),
    Column("job_id", String(63), nullable=False),
    Column("worker_id", String(63), nullable=False),
    Column("work_item_id", String(63), nullable=False),
    Column("repository_id", String(63), nullable=False),
    Column("branch", LargeBinary, nullable=False),
    Column("files_digest", String(64), nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("update_time", Moment, nullable=False),
    Column("expire_time", Moment, nullable=True),
    # None while it is ACTIVE, and for those that were being removed before this was recorded.
    Column("complete_time", Moment, nullable=True),
    # Where its HOME was taken over from; NULL for none, and for a new one.
    Column("home_workspace_id", String(63), nullable=True),
)


@dataclass(frozen=True, slots=True)
class WorkspaceRemoved:
    """The event that a workspace's record was removed, after its files."""

    workspace_id: str


class WorkspaceStore:
    """The records of workspaces. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, workspace: Workspace) -> None:
        """Record a workspace; its id MUST be new."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(workspaces).values(_to_row(workspace)))
            publish_on_commit(connection, workspace)

    async def find(self, workspace_id: str) -> Workspace | None:
        """Return one workspace, or None."""
        found = await self._read(select(workspaces).where(workspaces.c.workspace_id == workspace_id))
        return found[0] if found else None

    async def all(self) -> Sequence[Workspace]:
        """Return every workspace."""
        return await self._read(select(workspaces))

    async def page(self, filters: Filter, page: Page) -> tuple[list[Workspace], str]:
        """Return a page of workspaces, the newest first, and the token of the next page."""
        key = (as_number(workspaces.c.create_time), workspaces.c.workspace_id)
        rows = await self._read(page.select(_narrowed(select(workspaces), filters), key, descending=True))
        return page.cut(rows, lambda workspace: (microseconds(workspace.create_time), workspace.workspace_id))

    async def ended_of_job(self, project_id: str, job_id: str) -> Sequence[Workspace]:
        """Return a job's workspaces whose work has ended, the newest first."""
        of_job = and_(workspaces.c.project_id == project_id, workspaces.c.job_id == job_id)
        statement = select(workspaces).where(of_job, workspaces.c.state.in_(SETTABLE_STATES))
        return await self._read(statement.order_by(workspaces.c.create_time.desc(), workspaces.c.workspace_id.desc()))

    async def active(self) -> Sequence[str]:
        """Return the ids of the active ones."""
        return await self._ids(workspaces.c.state == State.ACTIVE)

    async def stale(self, now: datetime, updated_before: datetime, project_id: str = "") -> Sequence[str]:
        """Return the ids of those that are not ACTIVE, and have expired or were last updated before a time.

        With `project_id`, only those of that project.
        """
        updated, expire = workspaces.c.update_time, workspaces.c.expire_time
        wanted = [workspaces.c.project_id == project_id] if project_id else []
        is_stale = or_(updated <= updated_before, expire <= now)
        return await self._ids(workspaces.c.state != State.ACTIVE, is_stale, *wanted)

    async def over(self, now: datetime, updated_before: datetime) -> Sequence[str]:
        """Return the ids of those that are not ACTIVE, and have expired or, without an expiry time, are older."""
        updated, expire = workspaces.c.update_time, workspaces.c.expire_time
        old = and_(expire.is_(None), updated <= updated_before)
        return await self._ids(workspaces.c.state != State.ACTIVE, or_(old, expire <= now))

    async def _ids(self, *conditions: ColumnElement[bool]) -> Sequence[str]:
        """Return the ids for which all conditions hold, the longest unchanged first."""
        statement = select(workspaces.c.workspace_id).where(*conditions).order_by(workspaces.c.update_time)
        async with self._engine.begin() as connection:
            return (await connection.scalars(statement)).all()

    async def set_state(self, workspace_id: str, state: State, update_time: datetime) -> None:
        """Record a state, and with the first one that ends its work when that was.

        Does nothing when there is no such workspace.
        """
        changed: dict[str, object] = {"state": state, "update_time": update_time}
        if state in SETTABLE_STATES:
            changed["complete_time"] = func.coalesce(workspaces.c.complete_time, microseconds(update_time))
        statement = update(workspaces).where(workspaces.c.workspace_id == workspace_id)
        async with self._engine.begin() as connection:
            await connection.execute(statement.values(**changed))

    async def set_expire_time(self, workspace_id: str, expire_time: datetime) -> None:
        """Record when a workspace expires. Does nothing when there is no such workspace."""
        statement = update(workspaces).where(workspaces.c.workspace_id == workspace_id)
        async with self._engine.begin() as connection:
            await connection.execute(statement.values(expire_time=expire_time))

    async def remove(self, workspace_id: str) -> None:
        """Remove a record. Does nothing when there is no such workspace."""
        async with self._engine.begin() as connection:
            gone = await connection.execute(delete(workspaces).where(workspaces.c.workspace_id == workspace_id))
            if gone.rowcount:
                publish_on_commit(connection, WorkspaceRemoved(workspace_id))

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how many there are, by state and driver."""
        kinds = (workspaces.c.state, workspaces.c.driver)
        async with self._engine.begin() as connection:
            rows = (await connection.execute(select(*kinds, func.count()).group_by(*kinds).order_by(*kinds))).all()
        return {(state, driver): count for state, driver, count in rows}

    async def _read(self, statement: Select[tuple[object, ...]]) -> list[Workspace]:
        async with self._engine.begin() as connection:
            return [_from_row(row) for row in await connection.execute(statement)]


def _narrowed(statement: Select[tuple[object, ...]], filters: Filter) -> Select[tuple[object, ...]]:
    if filters.states:
        statement = statement.where(workspaces.c.state.in_(filters.states))
    for name in ("project_id", "job_id", "worker_id", "work_item_id"):
        if value := getattr(filters, name):
            statement = statement.where(workspaces.c[name] == value)
    return statement


def _to_row(workspace: Workspace) -> dict[str, object]:
    labels = workspace.labels
    return {
        "workspace_id": workspace.workspace_id,
        "state": workspace.state,
        "driver": workspace.driver,
        "base_layers": b"\0".join(map(os.fsencode, workspace.base_layers)),
        "pins_path": None if workspace.pins_path is None else os.fsencode(workspace.pins_path),
        "visibility": workspace.visibility.value,
        "project_id": labels.project_id,
        "job_id": labels.job_id,
        "worker_id": labels.worker_id,
        "work_item_id": labels.work_item_id,
        "repository_id": labels.repository_id,
        "branch": labels.branch,
        "files_digest": workspace.files_digest,
        "create_time": workspace.create_time,
        "update_time": workspace.update_time,
        "expire_time": workspace.expire_time,
        "complete_time": workspace.complete_time,
        "home_workspace_id": workspace.home_workspace_id or None,
    }


def _from_row(row: Row[tuple[object, ...]]) -> Workspace:
    return Workspace(
        workspace_id=row.workspace_id,
        state=State(row.state),
        driver=row.driver,
        base_layers=tuple(Path(os.fsdecode(path)) for path in row.base_layers.split(b"\0") if path),
        pins_path=None if row.pins_path is None else Path(os.fsdecode(row.pins_path)),
        visibility=Visibility(row.visibility),
        labels=Labels(
            project_id=row.project_id,
            job_id=row.job_id,
            worker_id=row.worker_id,
            work_item_id=row.work_item_id,
            repository_id=row.repository_id,
            branch=row.branch,
        ),
        files_digest=row.files_digest,
        create_time=row.create_time,
        update_time=row.update_time,
        expire_time=row.expire_time,
        complete_time=row.complete_time,
        home_workspace_id=row.home_workspace_id or "",
    )
