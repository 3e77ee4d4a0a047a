"""What the git service does for its callers, put together from its parts."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import AlreadyExists
from services.common.fence import current_fence
from services.git import failures
from services.git.benches import Order
from services.git.clones import Clones
from services.git.diffs import Diffs
from services.git.disk import Disk, DiskUsage
from services.git.expiry import Expiry
from services.git.flights import Listener
from services.git.keeping import Keeping
from services.git.mirrors import Mirrors
from services.git.model import (
    Base,
    ChangedFile,
    Clone,
    CloneOrder,
    DiffEnd,
    Head,
    Progress,
    Remote,
    Result,
    Signature,
    Snapshot,
    StatusEntry,
    Wanted,
    WorkingTree,
)
from services.git.names import is_commit_id
from services.git.preparing import Preparing
from services.git.progress import with_progress
from services.git.publishing import Publisher
from services.git.results import Results
from services.git.snapshots import SnapshotOrder, Snapshots
from services.git.store import GitStore
from services.git.trees import Trees
from services.git.upkeep import Upkeep
from services.sandbox.errors import HeldError, SandboxUnavailableError


class GitManager:
    """One method an RPC. What changes something checks the caller's fence first."""

    def __init__(
        self,
        *,
        store: GitStore,
        fences: Fences,
        mirrors: Mirrors,
        preparing: Preparing,
        results: Results,
        keeping: Keeping,
        snapshots: Snapshots,
        trees: Trees,
        diffs: Diffs,
        publisher: Publisher,
        clones: Clones,
        disk: Disk,
        upkeep: Upkeep,
        expiry: Expiry,
    ) -> None:
        self._store = store
        self._fences = fences
        self._mirrors = mirrors
        self._preparing = preparing
        self._results = results
        self._keeping = keeping
        self._snapshots = snapshots
        self._trees = trees
        self._diffs = diffs
        self._publisher = publisher
        self._clones = clones
        self.disk = disk
        self.upkeep = upkeep
        self.warming = preparing.warming
        self._expiry = expiry

    def prepare_base(self, remote: Remote, wanted: Wanted) -> AsyncGenerator[Progress | Base, None]:
        """Yield progress, and last a tree of the wanted commit. See Preparing.prepare."""
        return with_progress(lambda report: self._preparing.prepare(remote, wanted, report))

    async def clone(self, order: CloneOrder, report: Listener = lambda _: None) -> Clone:
        """Make a plain clone under the caller's id.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            NotFound, FailedPrecondition, Exhausted: as `prepare_base`.
        """
        # The token is no part of the order: it may be renewed.
        words = (order.remote.repository_id, order.remote.url, order.branch, order.depth)
        order_hash = hashlib.sha256(repr(words).encode()).hexdigest()
        if not await self._store.claim_clone(order.clone_id, order_hash):
            message = f"the clone {order.clone_id} was made for another request"
            raise AlreadyExists("clone", order.clone_id, reason="REQUEST_ID_REUSED", message=message)
        return await self._clones.clone(order, report)

    async def head(self, tree: WorkingTree) -> Head:
        """See Trees.head."""
        return await self._trees.head(tree)

    async def status(self, tree: WorkingTree) -> list[StatusEntry]:
        """See Trees.status."""
        return await self._trees.status(tree)

    async def create_branch(self, tree: WorkingTree, branch: bytes, commit_id: str) -> str:
        """See Trees.create_branch. Raises FailedPrecondition (STALE_FENCE) too."""
        await self._check_fence()
        return await self._trees.create_branch(tree, branch, commit_id)

    async def stage_all(self, tree: WorkingTree) -> int:
        """See Trees.stage_all. Raises FailedPrecondition (STALE_FENCE) too."""
        await self._check_fence()
        return await self._trees.stage_all(tree)

    async def commit(self, tree: WorkingTree, message: str, signature: Signature) -> str:
        """See Trees.commit. Raises FailedPrecondition (STALE_FENCE) too."""
        await self._check_fence()
        return await self._trees.commit(tree, message, signature)

    async def take_result(self, repository_id: str, result_id: str, order: Order) -> Result:
        """Take a working tree as a commit of the result store.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            FailedPrecondition: TAKE_FAILED, STALE_FENCE, SANDBOX_UNAVAILABLE, WORKSPACE_HELD.
        """
        await self._check_fence()
        borrowed, layered_on = await self._preparing.takeable(
            repository_id, result_id, order.tree, order.base_commit_id
        )
        order = replace(order, layered_on=layered_on)
        try:
            return await self._keeping.take(repository_id, result_id, order, borrowed)
        except SandboxUnavailableError as error:
            raise failures.sandbox_unavailable(error) from error
        except HeldError as error:
            raise failures.workspace_held(error) from error

    async def snapshot_tree(self, order: SnapshotOrder) -> Snapshot:
        """Keep a working tree as it is. See Snapshots.take.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            NotFound, FailedPrecondition, Exhausted: as `take_result`.
        """
        await self._check_fence()
        borrowed, layered_on = await self._preparing.takeable(
            order.repository_id, order.snapshot_id, order.tree, order.base_commit_id
        )
        try:
            return await self._snapshots.take(order, borrowed, layered_on)
        except SandboxUnavailableError as error:
            raise failures.sandbox_unavailable(error) from error
        except HeldError as error:
            raise failures.workspace_held(error) from error

    async def snapshot(self, snapshot_id: str) -> Snapshot:
        """See Snapshots.get."""
        return await self._snapshots.get(snapshot_id)

    async def snapshot_page(self, repository_id: str, page: Page) -> tuple[list[Snapshot], str]:
        """See Snapshots.page."""
        return await self._snapshots.page(repository_id, page)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """See Snapshots.delete. Raises FailedPrecondition (STALE_FENCE) too."""
        await self._check_fence()
        await self._snapshots.delete(snapshot_id)

    async def sweep(self, now: datetime) -> list[str]:
        """See Expiry.sweep."""
        return await self._expiry.sweep(now)

    async def usage(self) -> DiskUsage:
        """Count what is there, and what has gone."""
        return replace(
            await self.disk.usage(), results=await self._keeping.counts(), expired_results=self._keeping.expired
        )

    async def keep_house(self) -> None:
        """Sweep, evict, pack anew and warm, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._expiry.keep_swept())
            group.create_task(self._fences.forget_in_time())
            group.create_task(self.disk.keep_swept())
            group.create_task(self.upkeep.keep_up())
            group.create_task(self.warming.keep_warm())

    async def push(
        self, remote: Remote, commit_id: str, branch: bytes, expected: str, report: Listener = lambda _: None
    ) -> bool:
        """Push a result; returns whether it was there already.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            Aborted: REF_MOVED.
            FailedPrecondition: PUSH_REJECTED, STALE_FENCE.
        """
        await self._check_fence()
        store = await self._store_with(remote.repository_id, commit_id)
        return await self._publisher.push(store, remote, commit_id, branch, expected, report=report)

    async def diff(
        self, repository_id: str, base: str | bytes, commit: str, max_bytes: int
    ) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield a diff in pieces of any size, then its end. See Diffs.diff.

        `base` is the id of a commit, or the name of a branch of the remote: where `commit` left it is compared with.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
        """
        base_id = await self.diff_base(repository_id, base, commit)
        store = await self._store_with(repository_id, base_id, commit)
        async for piece in self._diffs.diff(store, base_id, commit, max_bytes):
            yield replace(piece, base_commit_id=base_id) if isinstance(piece, DiffEnd) else piece

    async def changed_files(self, repository_id: str, base: str | bytes, commit: str) -> list[ChangedFile]:
        """List the files that differ, by path. `base`, and what is raised: as `diff`."""
        base_id = await self.diff_base(repository_id, base, commit)
        store = await self._store_with(repository_id, base_id, commit)
        return await self._diffs.changed_files(store, base_id, commit)

    async def diff_base(self, repository_id: str, base: str | bytes, commit: str) -> str:
        """Return the commit that is compared with. `base`, and what is raised: as `diff`."""
        if isinstance(base, str):
            return base
        store = await self._store_with(repository_id, commit)
        branch = await self._mirrors.resolve(repository_id, b"refs/heads/" + base)
        found = None if branch is None else await self._diffs.merge_base(store, branch.commit_id, commit)
        if found is None:
            raise failures.revision_not_found(base)
        return found

    async def _store_with(self, repository_id: str, *commit_ids: str) -> Path:
        self._check_known(repository_id)
        for commit_id in commit_ids:
            if not is_commit_id(commit_id) or not await self._results.has(repository_id, commit_id):
                raise failures.revision_not_found(commit_id)
        return await self._results.store(repository_id)

    def _check_known(self, repository_id: str) -> None:
        if not self._mirrors.exists(repository_id):
            raise failures.repository_not_found(repository_id)

    async def _check_fence(self) -> None:
        await self._fences.check(current_fence())
