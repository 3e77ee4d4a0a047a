"""Snapshots: working trees kept for a while, as commits under private refs of the result stores."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from services.common.db.paging import Page
from services.common.errors import NotFound, RequestIdReused, ServiceError
from services.git.gitcmd import GitError
from services.git.model import Order, Signature, Snapshot, SnapshotOrder
from services.git.single_flight import Flights
from services.git.store import SnapshotStore
from services.git.stores.results import Results

_AT_ONCE: Final = 100

_log = structlog.get_logger()


class Snapshots:
    """Makes snapshots, each once, and forgets them when their time is over."""

    def __init__(self, store: SnapshotStore, results: Results, keep_for: timedelta) -> None:
        self._store = store
        self._results = results
        self._keep_for = keep_for
        self._flights = Flights[Snapshot]()

    async def take(self, order: SnapshotOrder, borrowed: tuple[Path, ...], layered_on: str) -> Snapshot:
        """Return the snapshot of this id, after making it where there is none.

        `borrowed` and `layered_on` as in Results.take and Order.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            FailedPrecondition: TAKE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        return await self._flights.join((order.snapshot_id, order), lambda _: self._take(order, borrowed, layered_on))

    async def get(self, snapshot_id: str) -> Snapshot:
        """Return one snapshot. Raises NotFound: SNAPSHOT_NOT_FOUND."""
        found = await self._store.find(snapshot_id)
        if found is None or not found.commit_id:
            raise NotFound("snapshot", snapshot_id)
        return found

    async def page(self, repository_id: str, page: Page) -> tuple[list[Snapshot], str]:
        """Return a page of snapshots, the newest first, and the token of the next page."""
        return await self._store.page(repository_id, page)

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; one that is gone is a success. Raises Exhausted: REPOSITORY_BUSY."""
        found = await self._store.find(snapshot_id)
        if found is None:
            return
        await self._results.forget(found.repository_id, _ref(snapshot_id))
        await self._store.remove(snapshot_id)

    async def sweep(self, now: datetime) -> list[str]:
        """Delete some of those that have expired; return which. What resists is logged, and left to the next sweep."""
        gone = []
        for snapshot in await self._store.expired(now, _AT_ONCE):
            try:
                await self.delete(snapshot.snapshot_id)
                gone.append(snapshot.snapshot_id)
            except (ServiceError, GitError) as error:
                _log.warning("cannot delete a snapshot", snapshot_id=snapshot.snapshot_id, error=str(error))
        return gone

    async def _take(self, order: SnapshotOrder, borrowed: tuple[Path, ...], layered_on: str) -> Snapshot:
        now = datetime.now(UTC)
        wanted = Snapshot(
            snapshot_id=order.snapshot_id,
            repository_id=order.repository_id,
            base_commit_id=order.base_commit_id,
            commit_id="",
            message=order.message,
            create_time=now,
            expire_time=now + (order.keep_for or self._keep_for),
        )
        # Recorded before the ref is made: a ref that nobody knows of would stay for ever.
        found = await self._store.claim(wanted, _hash(order))
        if found is None:
            raise RequestIdReused("snapshot", order.snapshot_id)
        if found.commit_id:
            return found
        # The time of the first try, so that each makes the same commit.
        signature = Signature("Boatyard", "boatyard@localhost", int(found.create_time.timestamp()))
        work = Order(order.tree, order.base_commit_id, order.message, signature, layered_on)
        taken = await self._results.take(order.repository_id, _ref(order.snapshot_id), work, borrowed)
        await self._store.complete(order.snapshot_id, taken.commit_id)
        return replace(found, commit_id=taken.commit_id)


def _ref(snapshot_id: str) -> str:
    return f"refs/boatyard/snapshots/{snapshot_id}"


def _hash(order: SnapshotOrder) -> str:
    words = (order.repository_id, order.tree.path, order.base_commit_id, order.message, order.keep_for)
    return hashlib.sha256(repr(words).encode()).hexdigest()
