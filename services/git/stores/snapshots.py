"""Snapshots: working trees kept for a while, as commits under private refs of the result stores."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from services.common.db.paging import Page
from services.common.errors import NotFound, RequestIdReused, ServiceError
from services.git.empty import EMPTY_COMMIT_ID
from services.git.gitcmd import GitError
from services.git.model import Signature, Snapshot, SnapshotSpec, SubmoduleLink, TakeSpec
from services.git.single_flight import SingleFlight
from services.git.store import SnapshotRecords
from services.git.stores.results import ResultStores
from services.git.worktree.signatures import message_bytes, signature_line

_AT_ONCE: Final = 100
_NAME: Final = "Boatyard"
_EMAIL: Final = "boatyard@localhost"
_BY_US: Final = f"committer {_NAME} <{_EMAIL}> ".encode()

_log = structlog.get_logger()


class Snapshots:
    """Takes snapshots, each once, and deletes them when they have expired."""

    def __init__(self, records: SnapshotRecords, results: ResultStores, keep_for: timedelta) -> None:
        self._records = records
        self._results = results
        self._keep_for = keep_for
        self._single_flight = SingleFlight[Snapshot]()

    async def take(
        self,
        spec: SnapshotSpec,
        borrowed: tuple[Path, ...],
        layered_on: str,
        links: tuple[SubmoduleLink, ...] = (),
        head_commit_id: str = "",
    ) -> Snapshot:
        """Return the snapshot of this id; take it when there is none.

        `borrowed`, `layered_on`, `links` and `head_commit_id` are those of ResultStores.take and TakeSpec.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            FailedPrecondition: TAKE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        return await self._single_flight.join(
            (spec.snapshot_id, spec), lambda _: self._take(spec, borrowed, layered_on, links, head_commit_id)
        )

    async def get(self, snapshot_id: str) -> Snapshot:
        """Return one snapshot. Raises NotFound: SNAPSHOT_NOT_FOUND."""
        snapshot = await self._records.find(snapshot_id)
        if snapshot is None or not snapshot.commit_id:
            raise NotFound("snapshot", snapshot_id)
        return snapshot

    async def head_of(self, snapshot: Snapshot) -> str:
        """Return the commit that HEAD of the tree was at when the snapshot was taken.

        It is the parent of the commit that was made for what had not been committed, or the last commit of the agent's
        own when that was all. A tree without any commit was at EMPTY_COMMIT_ID.
        """
        lines, parents, message = _parts(await self._results.raw_commit(snapshot.repository_id, snapshot.commit_id))
        is_ours = b"committer " + signature_line(_signature(snapshot)) in lines
        if len(parents) <= 1 and is_ours and message == message_bytes(snapshot.message):
            return parents[0] if parents else EMPTY_COMMIT_ID
        return snapshot.commit_id

    async def head_below(self, repository_id: str, commit_id: str) -> str:
        """Return what `head_of` does, of a snapshot's commit of which there may be no record any more."""
        lines, parents, _ = _parts(await self._results.raw_commit(repository_id, commit_id))
        is_ours = any(line.startswith(_BY_US) for line in lines)
        return parents[0] if is_ours and len(parents) == 1 else commit_id

    async def page(self, repository_id: str, page: Page) -> tuple[list[Snapshot], str]:
        """Return a page of snapshots, newest first, and the token of the next page."""
        return await self._records.page(repository_id, page)

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; a missing one is a success. Raises Exhausted: REPOSITORY_BUSY."""
        snapshot = await self._records.find(snapshot_id)
        if snapshot is None:
            return
        await self._results.remove_ref(snapshot.repository_id, _ref(snapshot_id))
        await self._records.remove(snapshot_id)

    async def remove_expired(self, now: datetime) -> list[str]:
        """Delete some of the expired snapshots; return their ids. Those that cannot be deleted are logged."""
        deleted = []
        for snapshot in await self._records.expired(now, _AT_ONCE):
            try:
                await self.delete(snapshot.snapshot_id)
                deleted.append(snapshot.snapshot_id)
            except (ServiceError, GitError) as error:
                _log.warning("cannot delete a snapshot", snapshot_id=snapshot.snapshot_id, error=str(error))
        return deleted

    async def _take(
        self,
        spec: SnapshotSpec,
        borrowed: tuple[Path, ...],
        layered_on: str,
        links: tuple[SubmoduleLink, ...],
        head_commit_id: str,
    ) -> Snapshot:
        now = datetime.now(UTC)
        new = Snapshot(
            snapshot_id=spec.snapshot_id,
            repository_id=spec.repository_id,
            base_commit_id=spec.base_commit_id,
            commit_id="",
            message=spec.message,
            create_time=now,
            expire_time=now + (spec.keep_for or self._keep_for),
        )
        # Recorded before the ref is made: a ref without a record would stay for ever.
        claimed = await self._records.claim(new, _hash(spec))
        if claimed is None:
            raise RequestIdReused("snapshot", spec.snapshot_id)
        if claimed.commit_id:
            return claimed
        signature = _signature(claimed)
        take_spec = TakeSpec(
            spec.tree,
            spec.base_commit_id,
            spec.message,
            signature,
            layered_on,
            spec.leave_out,
            links,
            head_commit_id,
            spec.git_lfs,
        )
        taken = await self._results.take(spec.repository_id, _ref(spec.snapshot_id), take_spec, borrowed)
        await self._records.complete(spec.snapshot_id, taken.commit_id, taken.caveats)
        return replace(claimed, commit_id=taken.commit_id, caveats=taken.caveats)


def _signature(snapshot: Snapshot) -> Signature:
    """Return who makes the snapshot's commit, at the time of the first try, so that every try makes the same commit."""
    return Signature(_NAME, _EMAIL, int(snapshot.create_time.timestamp()))


def _parts(raw: bytes) -> tuple[list[bytes], list[str], bytes]:
    """Return the headers of a commit object, its parents, and its message."""
    headers, _, message = raw.partition(b"\n\n")
    lines = headers.split(b"\n")
    parents = [line.removeprefix(b"parent ").decode("ascii") for line in lines if line.startswith(b"parent ")]
    return lines, parents, message


def _ref(snapshot_id: str) -> str:
    return f"refs/boatyard/snapshots/{snapshot_id}"


def _hash(spec: SnapshotSpec) -> str:
    request = (spec.repository_id, spec.tree.path, spec.base_commit_id, spec.message, spec.keep_for)
    return hashlib.sha256(repr(request).encode()).hexdigest()
