"""What the disk does not tell by itself: where mirrors come from, what clones and snapshots were made for, fences."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Column, MetaData, Row, String, Table, Text, delete, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import Moment, as_number, microseconds
from services.common.db.fences import fence_table
from services.common.db.paging import Page
from services.git.model import Snapshot

metadata = MetaData()
fences = fence_table(metadata)
repositories = Table(
    "repositories",
    metadata,
    Column("repository_id", String(63), primary_key=True),
    Column("url", Text, nullable=False),
)
clones = Table(
    "clones",
    metadata,
    Column("clone_id", String(63), primary_key=True),
    Column("order_hash", String(64), nullable=False),
)
snapshots = Table(
    "snapshots",
    metadata,
    Column("snapshot_id", String(63), primary_key=True),
    Column("repository_id", String(63), nullable=False, index=True),
    Column("request_hash", String(64), nullable=False),
    Column("base_commit_id", String(64), nullable=False),
    # None until the tree has been taken.
    Column("commit_id", String(64), nullable=True),
    Column("message", Text, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("expire_time", Moment, nullable=False, index=True),
)


class GitStore:
    """The records beside the repositories. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._urls: dict[str, str] = {}

    async def remember_url(self, repository_id: str, url: str) -> None:
        """Record where a repository is now; what is recorded already is not written again, for every job asks."""
        if self._urls.get(repository_id) == url:
            return
        new = sqlite.insert(repositories).values(repository_id=repository_id, url=url)
        statement = new.on_conflict_do_update(index_elements=["repository_id"], set_={"url": new.excluded.url})
        async with self._engine.begin() as connection:
            await connection.execute(statement)
        self._urls[repository_id] = url

    async def url(self, repository_id: str) -> str | None:
        """Return where a repository is, or None."""
        async with self._engine.begin() as connection:
            return await connection.scalar(
                select(repositories.c.url).where(repositories.c.repository_id == repository_id)
            )

    async def claim_clone(self, clone_id: str, order_hash: str) -> bool:
        """Record an order under an id; return False when the id stands for another one."""
        new = sqlite.insert(clones).values(clone_id=clone_id, order_hash=order_hash).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            await connection.execute(new)
            recorded = await connection.scalar(select(clones.c.order_hash).where(clones.c.clone_id == clone_id))
        return recorded == order_hash


class SnapshotStore:
    """The records of snapshots. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim(self, snapshot: Snapshot, request_hash: str) -> Snapshot | None:
        """Record a snapshot that is to be made, and return what stands under its id: an earlier one has its own times.

        None means that the id stands for another request. A snapshot that has not been taken yet has no commit.
        """
        new = sqlite.insert(snapshots).values(
            snapshot_id=snapshot.snapshot_id,
            repository_id=snapshot.repository_id,
            request_hash=request_hash,
            base_commit_id=snapshot.base_commit_id,
            message=snapshot.message,
            create_time=snapshot.create_time,
            expire_time=snapshot.expire_time,
        )
        async with self._engine.begin() as connection:
            await connection.execute(new.on_conflict_do_nothing())
            row = (
                await connection.execute(select(snapshots).where(snapshots.c.snapshot_id == snapshot.snapshot_id))
            ).one()
        return _snapshot(row) if row.request_hash == request_hash else None

    async def complete(self, snapshot_id: str, commit_id: str) -> None:
        """Record which commit holds the tree."""
        async with self._engine.begin() as connection:
            statement = update(snapshots).where(snapshots.c.snapshot_id == snapshot_id)
            await connection.execute(statement.values(commit_id=commit_id))

    async def find(self, snapshot_id: str) -> Snapshot | None:
        """Return a snapshot, whether its tree has been taken or not."""
        async with self._engine.begin() as connection:
            row = (await connection.execute(select(snapshots).where(snapshots.c.snapshot_id == snapshot_id))).first()
        return None if row is None else _snapshot(row)

    async def page(self, repository_id: str, page: Page) -> tuple[list[Snapshot], str]:
        """Return a page of those that were taken, the newest first, and the token of the next page."""
        statement = select(snapshots).where(snapshots.c.commit_id.is_not(None))
        if repository_id:
            statement = statement.where(snapshots.c.repository_id == repository_id)
        key = (as_number(snapshots.c.create_time), snapshots.c.snapshot_id)
        async with self._engine.begin() as connection:
            rows = (await connection.execute(page.select(statement, key, descending=True))).all()
        found, token = page.cut(rows, lambda row: (microseconds(row.create_time), row.snapshot_id))
        return [_snapshot(row) for row in found], token

    async def expired(self, now: datetime) -> Sequence[Snapshot]:
        """Return those whose time is over."""
        async with self._engine.begin() as connection:
            rows = await connection.execute(select(snapshots).where(snapshots.c.expire_time <= now))
            return [_snapshot(row) for row in rows]

    async def remove(self, snapshot_id: str) -> None:
        """Forget a snapshot. Without such a snapshot it does nothing."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(snapshots).where(snapshots.c.snapshot_id == snapshot_id))


def _snapshot(row: Row[tuple[object, ...]]) -> Snapshot:
    return Snapshot(
        snapshot_id=row.snapshot_id,
        repository_id=row.repository_id,
        base_commit_id=row.base_commit_id,
        commit_id=row.commit_id or "",
        message=row.message,
        create_time=row.create_time,
        expire_time=row.expire_time,
    )
