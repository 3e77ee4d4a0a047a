"""What the git service does for its callers, composed from its rooms."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import AlreadyExists
from services.common.fence import current_fence
from services.git import failures
from services.git.bases.preparer import BasePreparer
from services.git.comparison import Comparison
from services.git.disk.budget import DiskBudget, DiskUsage
from services.git.model import (
    Artifact,
    Base,
    ChangedFile,
    Clone,
    CloneSpec,
    CloneUsage,
    DiffEnd,
    Head,
    Progress,
    ProgressListener,
    Remote,
    ResultCommit,
    Signature,
    Snapshot,
    SnapshotSpec,
    StartPoint,
    StatusEntry,
    TakenArtifacts,
    TakeSpec,
    TreeOrigin,
    WorkingTree,
)
from services.git.progress import with_progress
from services.git.remote.addresses import AddressBook
from services.git.remote.publisher import Publisher
from services.git.store import RepositoryRecords
from services.git.stores.artifacts import ArtifactStore
from services.git.stores.clones import Clones
from services.git.stores.commits import CommitStores
from services.git.stores.lfs_transfer import LfsTransfer
from services.git.stores.mirrors import Mirrors
from services.git.stores.repacking import MirrorRepacker
from services.git.stores.retention import ResultRetention, RetentionLoop
from services.git.stores.snapshots import Snapshots
from services.git.stores.tree_commits import TreeCommits
from services.git.stores.tree_diffs import TreeDiffs
from services.git.taking import Taking
from services.git.worktree.trees import WorkingTrees
from services.redaction.strand import Redactor


class GitManager:
    """One method for each RPC. Methods that change something check the caller's fence first."""

    def __init__(
        self,
        *,
        records: RepositoryRecords,
        fences: Fences,
        mirrors: Mirrors,
        preparer: BasePreparer,
        taking: Taking,
        comparison: Comparison,
        lfs: LfsTransfer,
        stores: CommitStores,
        retention: ResultRetention,
        snapshots: Snapshots,
        artifacts: ArtifactStore,
        trees: WorkingTrees,
        tree_diffs: TreeDiffs,
        tree_commits: TreeCommits,
        publisher: Publisher,
        addresses: AddressBook,
        clones: Clones,
        budget: DiskBudget,
        repacker: MirrorRepacker,
        retention_loop: RetentionLoop,
    ) -> None:
        self._records = records
        self._fences = fences
        self._mirrors = mirrors
        self._preparer = preparer
        self._taking = taking
        self._comparison = comparison
        self._lfs = lfs
        self._stores = stores
        self._retention = retention
        self._snapshots = snapshots
        self._artifacts = artifacts
        self._trees = trees
        self._tree_diffs = tree_diffs
        self._tree_commits = tree_commits
        self._publisher = publisher
        self._addresses = addresses
        self._clones = clones
        self.budget = budget
        self.repacker = repacker
        self.warmer = preparer.warmer
        self._retention_loop = retention_loop

    def prepare_base(self, remote: Remote, start: StartPoint) -> AsyncGenerator[Progress | Base, None]:
        """Yield progress, and a tree of the requested commit last. Raises the errors of BasePreparer.prepare."""
        return with_progress(lambda report: self._preparer.prepare(remote, start, report))

    async def prepare_empty_base(self, repository_id: str, result_commit_id: str = "", snapshot_id: str = "") -> Base:
        """Return a tree for work without a remote. See BasePreparer.prepare_empty."""
        return await self._preparer.prepare_empty(repository_id, result_commit_id, snapshot_id)

    async def clone(self, spec: CloneSpec, report: ProgressListener = lambda _: None) -> Clone:
        """Make a plain clone under the caller's id.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            NotFound, FailedPrecondition, Exhausted: as `prepare_base`.
        """
        # The token is left out: it may be renewed between two tries of one request.
        request = (spec.remote.repository_id, spec.remote.url, spec.branch, spec.depth)
        order_hash = hashlib.sha256(repr(request).encode()).hexdigest()
        if not await self._records.claim_clone(spec.clone_id, order_hash):
            message = f"the clone {spec.clone_id} was made for another request"
            raise AlreadyExists("clone", spec.clone_id, reason="REQUEST_ID_REUSED", message=message)
        return await self._clones.clone(spec, report)

    async def clone_usages(self) -> list[CloneUsage]:
        """Return all clones with their sizes, ordered by id."""
        return await asyncio.to_thread(self._clones.usages)

    async def delete_clone(self, clone_id: str) -> None:
        """Remove a clone; a missing one is a success. Raises FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        await self._clones.delete(clone_id)
        await self._records.forget_clone(clone_id)

    async def head(self, tree: WorkingTree) -> Head:
        """Return the branch and the commit of HEAD. Raises the errors of WorkingTrees.head."""
        return await self._trees.head(tree)

    async def status(self, tree: WorkingTree) -> list[StatusEntry]:
        """List the paths that differ from HEAD, in order. Raises the errors of WorkingTrees.status."""
        return await self._trees.status(tree)

    async def create_branch(self, tree: WorkingTree, branch: bytes, commit_id: str) -> str:
        """Make a branch. Raises the errors of WorkingTrees.create_branch, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        return await self._trees.create_branch(tree, branch, commit_id)

    async def stage_all(self, tree: WorkingTree, leave_out: Iterable[str] = ()) -> int:
        """Stage all changes. Raises the errors of WorkingTrees.stage_all, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        return await self._trees.stage_all(tree, leave_out)

    async def commit(self, tree: WorkingTree, message: str, signature: Signature) -> str:
        """Commit what is staged. Raises the errors of WorkingTrees.commit, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        return await self._trees.commit(tree, message, signature)

    async def take_result(
        self, repository_id: str, result_id: str, spec: TakeSpec, remote: Remote | None = None
    ) -> ResultCommit:
        """Take a working tree as a commit. Raises the errors of Taking.result, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        return await self._taking.result(repository_id, result_id, spec, remote)

    async def snapshot_tree(self, spec: SnapshotSpec) -> Snapshot:
        """Keep a working tree as it is. Raises the errors of Taking.snapshot, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        return await self._taking.snapshot(spec)

    async def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return one snapshot. Raises NotFound: SNAPSHOT_NOT_FOUND."""
        return await self._snapshots.get(snapshot_id)

    async def snapshot_page(self, repository_id: str, page: Page) -> tuple[list[Snapshot], str]:
        """Return a page of snapshots, newest first, and the token of the next page."""
        return await self._snapshots.page(repository_id, page)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot. Raises the errors of Snapshots.delete, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        await self._snapshots.delete(snapshot_id)

    async def take_artifacts(
        self,
        artifacts_id: str,
        tree: WorkingTree,
        patterns: Sequence[str],
        redactor: Redactor,
        origin: TreeOrigin | None = None,
    ) -> TakenArtifacts:
        """Keep files of a working tree. Raises the errors of Taking.artifacts, and FailedPrecondition (STALE_FENCE)."""
        await self._check_fence()
        return await self._taking.artifacts(artifacts_id, tree, patterns, redactor, origin)

    async def artifacts(self, artifacts_id: str) -> list[Artifact]:
        """List what is kept under an id, by name."""
        return await self._artifacts.kept(artifacts_id)

    def read_artifact(
        self, artifacts_id: str, name: str, offset: int, max_bytes: int
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        """Yield the content of an artifact. See ArtifactStore.read."""
        return self._artifacts.read(artifacts_id, name, offset, max_bytes)

    async def remove_expired(self, now: datetime) -> list[str]:
        """Delete what has expired; return the ids. See RetentionLoop.remove_expired."""
        return await self._retention_loop.remove_expired(now)

    async def usage(self) -> DiskUsage:
        """Count what is stored, and what has been removed since the service started."""
        return replace(
            await self.budget.usage(), results=await self._retention.counts(), expired_results=self._retention.expired
        )

    async def run_maintenance(self) -> None:
        """Remove what has expired, evict, repack and warm, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._retention_loop.run_retention())
            group.create_task(self._fences.run_retention())
            group.create_task(self.budget.run_eviction())
            group.create_task(self.repacker.run_repacking())
            group.create_task(self.warmer.run_warming())

    async def push(
        self,
        remote: Remote,
        commit_id: str,
        branch: bytes,
        expected: str,
        *,
        tree: WorkingTree | None = None,
        report: ProgressListener = lambda _: None,
    ) -> bool:
        """Push a result, or a commit of `tree`'s repository; return True when the branch was there already.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            Aborted: REF_MOVED.
            FailedPrecondition: PUSH_REJECTED, STALE_FENCE, and of a tree what TreeCommits.bring raises.
        """
        await self._check_fence()
        if tree is not None:
            if not self._mirrors.exists(remote.repository_id):  # of a plain clone there is none yet
                await self._mirrors.refresh(remote, listener=report)
            with failures.of_sandboxes():
                await self._tree_commits.bring(remote.repository_id, tree, commit_id)
        store = await self._stores.store_with(remote.repository_id, commit_id)
        await self._lfs.bring(remote, commit_id, branch)
        return await self._publisher.push(store, remote, commit_id, branch, expected, report=report)

    async def check_remote(self, remote: Remote) -> None:
        """Find out whether a remote may be used, without asking it. Raises the errors of AddressBook.check."""
        await self._addresses.check(remote.url)

    async def check_push(self, remote: Remote, commit_id: str, branch: bytes, allowed: Collection[str]) -> None:
        """Find out whether a branch could be pushed to. Raises NotFound as `push` does, and as Publisher.check."""
        store = await self._stores.store_with(remote.repository_id, commit_id)
        await self._publisher.check(store, remote, commit_id, branch, allowed)

    def diff(
        self, repository_id: str, base: str | bytes, commit: str, max_bytes: int
    ) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield a diff in pieces of any size, then its end. See Comparison.diff."""
        return self._comparison.diff(repository_id, base, commit, max_bytes)

    async def changed_files(
        self, repository_id: str, base: str | bytes, commit: str, patterns: Sequence[str] = ()
    ) -> list[ChangedFile]:
        """List the files that differ, by path. See Comparison.changed_files."""
        return await self._comparison.changed_files(repository_id, base, commit, patterns)

    async def diff_base(self, repository_id: str, base: str | bytes, commit: str) -> str:
        """Return the commit to compare with. See Comparison.diff_base."""
        return await self._comparison.diff_base(repository_id, base, commit)

    async def tree_diff(self, tree: WorkingTree, max_bytes: int) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield the difference between a working tree and its HEAD, then its end. See TreeDiffs.diff."""
        with failures.of_sandboxes():
            async for piece in self._tree_diffs.diff(tree, max_bytes):
                yield piece

    async def _check_fence(self) -> None:
        await self._fences.check(current_fence())
