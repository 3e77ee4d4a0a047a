"""The records that the disk alone cannot tell: URLs of mirrors, requests for clones, retention times, fences."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import Moment, as_number, microseconds
from services.common.db.fences import fence_table
from services.common.db.paging import Page
from services.git.caveats import caveats_from_json, caveats_to_json
from services.git.model import Caveat, ResultRecord, Snapshot

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
    # None until the tree has been taken, and for those of versions that did not record it.
    Column("caveats", Text, nullable=True),
)
results = Table(
    "results",
    metadata,
    Column("repository_id", String(63), primary_key=True),
    Column("result_id", String(63), primary_key=True),
    # The tree that it was taken from; None when unknown.
    Column("tree", LargeBinary, nullable=True),
    Column("expire_time", Moment, nullable=False, index=True),
)


class RepositoryRecords:
    """The records beside the repositories. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._urls: dict[str, str] = {}

    async def remember_url(self, repository_id: str, url: str) -> None:
        """Record a repository's URL. An unchanged URL is not written again, because every job comes by here."""
        if self._urls.get(repository_id) == url:
            return
        new = sqlite.insert(repositories).values(repository_id=repository_id, url=url)
        statement = new.on_conflict_do_update(index_elements=["repository_id"], set_={"url": new.excluded.url})
        async with self._engine.begin() as connection:
            await connection.execute(statement)
        self._urls[repository_id] = url

    async def url(self, repository_id: str) -> str | None:
        """Return a repository's URL, None when none is recorded."""
        async with self._engine.begin() as connection:
            return await connection.scalar(
                select(repositories.c.url).where(repositories.c.repository_id == repository_id)
            )

    async def claim_clone(self, clone_id: str, order_hash: str) -> bool:
        """Record a request under an id; return False when another request has that id."""
        new = sqlite.insert(clones).values(clone_id=clone_id, order_hash=order_hash).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            await connection.execute(new)
            recorded = await connection.scalar(select(clones.c.order_hash).where(clones.c.clone_id == clone_id))
        return recorded == order_hash

    async def forget_clone(self, clone_id: str) -> None:
        """Remove the record of a clone's request. Does nothing when there is none."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(clones).where(clones.c.clone_id == clone_id))


class ResultRecords:
    """The records of results. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def save(self, record: ResultRecord) -> None:
        """Record how long a result is kept, in place of an earlier record of the same name."""
        new = sqlite.insert(results).values(**_row(record))
        again = {"tree": new.excluded.tree, "expire_time": new.excluded.expire_time}
        async with self._engine.begin() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=results.primary_key, set_=again))

    async def adopt(self, records: Sequence[ResultRecord]) -> int:
        """Record those of the results that have no record yet; return how many."""
        new = sqlite.insert(results).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            return sum([(await connection.execute(new.values(**_row(record)))).rowcount for record in records])

    async def expired(self, now: datetime, count: int) -> list[ResultRecord]:
        """Return at most `count` of those that have expired, the earliest first."""
        query = select(results).where(results.c.expire_time <= now).order_by(results.c.expire_time).limit(count)
        async with self._engine.begin() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def postpone(self, record: ResultRecord, until: datetime) -> None:
        """Keep a result longer, unless it was taken again meanwhile."""
        unchanged = (*_is(record.repository_id, record.result_id), results.c.expire_time == record.expire_time)
        async with self._engine.begin() as connection:
            await connection.execute(update(results).where(*unchanged).values(expire_time=until))

    async def find(self, repository_id: str, result_id: str) -> ResultRecord | None:
        """Return a result's record."""
        async with self._engine.begin() as connection:
            row = (await connection.execute(select(results).where(*_is(repository_id, result_id)))).first()
        return None if row is None else _record(row)

    async def remove(self, repository_id: str, result_id: str) -> None:
        """Remove a result's record. Does nothing when there is none."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(results).where(*_is(repository_id, result_id)))

    async def counts(self) -> dict[str, int]:
        """Return how many results each repository has that has any."""
        query = select(results.c.repository_id, func.count()).group_by(results.c.repository_id)
        async with self._engine.begin() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}


class SnapshotRecords:
    """The records of snapshots. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim(self, snapshot: Snapshot, request_hash: str) -> Snapshot | None:
        """Record a snapshot about to be made, and return the record of its id, which may be that of an earlier try.

        None means that another request has that id. A snapshot that has not been taken yet has an empty commit.
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

    async def complete(self, snapshot_id: str, commit_id: str, caveats: Sequence[Caveat]) -> None:
        """Record which commit holds the tree, and in what they differ."""
        async with self._engine.begin() as connection:
            statement = update(snapshots).where(snapshots.c.snapshot_id == snapshot_id)
            await connection.execute(statement.values(commit_id=commit_id, caveats=caveats_to_json(caveats)))

    async def find(self, snapshot_id: str) -> Snapshot | None:
        """Return a snapshot's record, even when its tree has not been taken yet."""
        async with self._engine.begin() as connection:
            row = (await connection.execute(select(snapshots).where(snapshots.c.snapshot_id == snapshot_id))).first()
        return None if row is None else _snapshot(row)

    async def page(self, repository_id: str, page: Page) -> tuple[list[Snapshot], str]:
        """Return a page of the snapshots that were taken, newest first, and the token of the next page."""
        statement = select(snapshots).where(snapshots.c.commit_id.is_not(None))
        if repository_id:
            statement = statement.where(snapshots.c.repository_id == repository_id)
        key = (as_number(snapshots.c.create_time), snapshots.c.snapshot_id)
        async with self._engine.begin() as connection:
            rows = (await connection.execute(page.select(statement, key, descending=True))).all()
        shown, token = page.cut(rows, lambda row: (microseconds(row.create_time), row.snapshot_id))
        return [_snapshot(row) for row in shown], token

    async def expired(self, now: datetime, count: int) -> Sequence[Snapshot]:
        """Return at most `count` of those that have expired, the earliest first."""
        query = select(snapshots).where(snapshots.c.expire_time <= now).order_by(snapshots.c.expire_time).limit(count)
        async with self._engine.begin() as connection:
            return [_snapshot(row) for row in await connection.execute(query)]

    async def remove(self, snapshot_id: str) -> None:
        """Remove a snapshot's record. Does nothing when there is none."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(snapshots).where(snapshots.c.snapshot_id == snapshot_id))


def _is(repository_id: str, result_id: str) -> tuple[ColumnElement[bool], ...]:
    return results.c.repository_id == repository_id, results.c.result_id == result_id


def _row(record: ResultRecord) -> dict[str, object]:
    tree = None if record.tree is None else os.fsencode(record.tree)
    return {**asdict(record), "tree": tree}


def _record(row: Row[tuple[object, ...]]) -> ResultRecord:
    tree = None if row.tree is None else Path(os.fsdecode(row.tree))
    return ResultRecord(row.repository_id, row.result_id, tree, row.expire_time)


def _snapshot(row: Row[tuple[object, ...]]) -> Snapshot:
    return Snapshot(
        snapshot_id=row.snapshot_id,
        repository_id=row.repository_id,
        base_commit_id=row.base_commit_id,
        commit_id=row.commit_id or "",
        message=row.message,
        create_time=row.create_time,
        expire_time=row.expire_time,
        caveats=caveats_from_json(row.caveats or "[]"),
    )
