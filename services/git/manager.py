"""What the git service does for its callers, composed from its rooms."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from services.common.db.fences import Fences
from services.common.db.paging import Page
from services.common.errors import AlreadyExists
from services.common.fence import current_fence
from services.common.path_patterns import PathPatterns
from services.git import failures
from services.git.bases.preparer import BasePreparer
from services.git.bases.submodule_links import SubmoduleLinks
from services.git.disk.budget import DiskBudget, DiskUsage
from services.git.model import (
    Artifact,
    Base,
    ChangedFile,
    ChangeKind,
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
    SubmoduleLink,
    TakenArtifacts,
    TakeSpec,
    TreeOrigin,
    WorkingTree,
)
from services.git.names import is_commit_id
from services.git.progress import with_progress
from services.git.remote.publisher import Publisher
from services.git.store import RepositoryRecords
from services.git.stores.artifacts import ArtifactStore
from services.git.stores.clones import Clones
from services.git.stores.diffs import Diffs
from services.git.stores.lfs_transfer import LfsTransfer
from services.git.stores.mirrors import Mirrors
from services.git.stores.repacking import MirrorRepacker
from services.git.stores.results import ResultStores
from services.git.stores.retention import ResultRetention, RetentionLoop
from services.git.stores.snapshots import Snapshots
from services.git.stores.tree_commits import TreeCommits
from services.git.stores.tree_diffs import TreeDiffs
from services.git.worktree.submodule_patches import WrittenSubmodule
from services.git.worktree.trees import WorkingTrees
from services.redaction.strand import Redactor
from services.sandbox.errors import HeldError, SandboxUnavailableError


class GitManager:
    """One method for each RPC. Methods that change something check the caller's fence first."""

    def __init__(
        self,
        *,
        records: RepositoryRecords,
        fences: Fences,
        mirrors: Mirrors,
        preparer: BasePreparer,
        submodule_links: SubmoduleLinks,
        lfs: LfsTransfer,
        results: ResultStores,
        retention: ResultRetention,
        snapshots: Snapshots,
        artifacts: ArtifactStore,
        trees: WorkingTrees,
        diffs: Diffs,
        tree_diffs: TreeDiffs,
        tree_commits: TreeCommits,
        publisher: Publisher,
        clones: Clones,
        budget: DiskBudget,
        repacker: MirrorRepacker,
        retention_loop: RetentionLoop,
    ) -> None:
        self._records = records
        self._fences = fences
        self._mirrors = mirrors
        self._preparer = preparer
        self._submodule_links = submodule_links
        self._lfs = lfs
        self._results = results
        self._retention = retention
        self._snapshots = snapshots
        self._artifacts = artifacts
        self._trees = trees
        self._diffs = diffs
        self._tree_diffs = tree_diffs
        self._tree_commits = tree_commits
        self._publisher = publisher
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
        """Take a working tree as a commit in the result store.

        With `remote`, the submodules' remotes are asked for commits that the agent may have pushed.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            FailedPrecondition: TAKE_FAILED, STALE_FENCE, SANDBOX_UNAVAILABLE, WORKSPACE_HELD.
        """
        await self._check_fence()
        borrowed, layered_on = await self._preparer.objects_to_take_with(
            repository_id, result_id, spec.tree, spec.base_commit_id
        )
        with _sandbox_refusals():
            head = await self._began_at(repository_id, layered_on)
            commits = spec.base_commit_id, layered_on or spec.base_commit_id, head or spec.base_commit_id
            links = await self._moved_links(repository_id, result_id, spec.tree, commits, remote)
            git_lfs = spec.git_lfs and await self._uses_lfs(repository_id)
            spec = replace(spec, layered_on=layered_on, links=links, head_commit_id=head, git_lfs=git_lfs)
            return await self._retention.take(repository_id, result_id, spec, borrowed)

    async def snapshot_tree(self, spec: SnapshotSpec) -> Snapshot:
        """Keep a working tree as it is. See Snapshots.take.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            NotFound, FailedPrecondition, Exhausted: as `take_result`.
        """
        await self._check_fence()
        borrowed, layered_on = await self._preparer.objects_to_take_with(
            spec.repository_id, spec.snapshot_id, spec.tree, spec.base_commit_id
        )
        with _sandbox_refusals():
            head = await self._began_at(spec.repository_id, layered_on)
            commits = spec.base_commit_id, layered_on or spec.base_commit_id, head or spec.base_commit_id
            links = await self._moved_links(spec.repository_id, spec.snapshot_id, spec.tree, commits)
            spec = replace(spec, git_lfs=spec.git_lfs and await self._uses_lfs(spec.repository_id))
            return await self._snapshots.take(spec, borrowed, layered_on, links, head)

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
        """Keep files of a working tree, without secrets. With its origin, what was done in submodules, too, as patches.

        Raises:
            FailedPrecondition: TAKE_FAILED, RESULT_TOO_LARGE, STALE_FENCE, SANDBOX_UNAVAILABLE, WORKSPACE_HELD.
            Exhausted: DISK_FULL.
        """
        await self._check_fence()
        with _sandbox_refusals():
            written = await self._written_submodules(artifacts_id, tree, origin) if origin else ()
            return await self._artifacts.take(artifacts_id, tree, patterns, redactor, written)

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
            with _sandbox_refusals():
                await self._tree_commits.bring(remote.repository_id, tree, commit_id)
        store = await self._store_with(remote.repository_id, commit_id)
        await self._lfs.bring(remote, commit_id, branch)
        return await self._publisher.push(store, remote, commit_id, branch, expected, report=report)

    async def check_push(self, remote: Remote, commit_id: str, branch: bytes, allowed: Collection[str]) -> None:
        """Find out whether a branch could be pushed to. Raises NotFound as `push` does, and as Publisher.check."""
        store = await self._store_with(remote.repository_id, commit_id)
        await self._publisher.check(store, remote, commit_id, branch, allowed)

    async def diff(
        self, repository_id: str, base: str | bytes, commit: str, max_bytes: int
    ) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield a diff in pieces of any size, then its end. See Diffs.diff.

        `base` is a commit id (str) or the name of a branch of the remote (bytes). For a branch, `commit` is compared
        with the commit where it left that branch.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
        """
        base_id = await self.diff_base(repository_id, base, commit)
        store = await self._store_with(repository_id, base_id, commit)
        async for piece in self._diffs.diff(store, base_id, commit, max_bytes):
            yield replace(piece, base_commit_id=base_id) if isinstance(piece, DiffEnd) else piece

    async def tree_diff(self, tree: WorkingTree, max_bytes: int) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield the difference between a working tree and its HEAD, then its end. See TreeDiffs.diff."""
        with _sandbox_refusals():
            async for piece in self._tree_diffs.diff(tree, max_bytes):
                yield piece

    async def changed_files(
        self, repository_id: str, base: str | bytes, commit: str, patterns: Sequence[str] = ()
    ) -> list[ChangedFile]:
        """List the files that differ, by path. `base` and the errors are those of `diff`.

        With patterns: those that any of them names, by their path or their previous one, and of files that do not
        differ those that a commit between the two changes, as a push would bring that commit along. If the base is on
        no branch and no tag of the remote, a push would bring what led to it too.
        """
        base_id = await self.diff_base(repository_id, base, commit)
        store = await self._store_with(repository_id, base_id, commit)
        files = await self._diffs.changed_files(store, base_id, commit)
        if not patterns:
            return files
        touched = await self._diffs.touched_paths(store, base_id, commit)
        if await self._mirrors.revisions.has(repository_id, base_id):
            touched |= await self._diffs.touched_on_no_branch(self._mirrors.path(repository_id), base_id)
        return await asyncio.to_thread(_named, files, touched, PathPatterns(patterns))

    async def diff_base(self, repository_id: str, base: str | bytes, commit: str) -> str:
        """Return the commit to compare with. `base` and the errors are those of `diff`."""
        if isinstance(base, str):
            return base
        store = await self._store_with(repository_id, commit)
        branch = await self._mirrors.revisions.resolve(repository_id, b"refs/heads/" + base)
        merge_base = None if branch is None else await self._diffs.merge_base(store, branch.commit_id, commit)
        if merge_base is None:
            raise failures.revision_not_found(base)
        return merge_base

    async def _uses_lfs(self, repository_id: str) -> bool:
        return await self._lfs.is_used(Remote(repository_id, await self._records.url(repository_id) or ""))

    async def _began_at(self, repository_id: str, layered_on: str) -> str:
        """Return where HEAD of a tree began, empty if at the commit below its layers, or that is unknown."""
        if not layered_on or await self._mirrors.revisions.has(repository_id, layered_on):
            return ""
        head = await self._snapshots.head_below(repository_id, layered_on)
        return "" if head == layered_on else head

    async def _moved_links(
        self,
        repository_id: str,
        name: str,
        tree: WorkingTree,
        commits: tuple[str, str, str],
        remote: Remote | None = None,
    ) -> tuple[SubmoduleLink, ...]:
        """Find out where the submodules of a tree are that is to be taken. Raises FailedPrecondition: TAKE_FAILED."""
        known = remote or Remote(repository_id, await self._records.url(repository_id) or "")
        store = await self._results.store(repository_id)
        with self._submodule_links.reading(name):
            return await self._submodule_links.moved(store, known, tree, commits, may_ask=remote is not None)

    async def _written_submodules(self, name: str, tree: WorkingTree, origin: TreeOrigin) -> Sequence[WrittenSubmodule]:
        """Find the submodules in which something was done. Raises NotFound, and FailedPrecondition: TAKE_FAILED."""
        store = await self._store_with(origin.repository_id, origin.commit_id)
        remote = Remote(origin.repository_id, await self._records.url(origin.repository_id) or "")
        with self._submodule_links.reading(name):
            return await self._submodule_links.written(store, remote, tree, origin.commit_id, origin.leave_out)

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


@contextmanager
def _sandbox_refusals() -> Iterator[None]:
    """Say why a tree cannot be read in a sandbox now."""
    try:
        yield
    except SandboxUnavailableError as error:
        raise failures.sandbox_unavailable(error) from error
    except HeldError as error:
        raise failures.workspace_held(error) from error


def _named(files: list[ChangedFile], touched: set[bytes], patterns: PathPatterns) -> list[ChangedFile]:
    differing = {path for file in files for path in (file.path, file.old_path)}
    files = [*files, *(ChangedFile(path, ChangeKind.MODIFIED) for path in touched - differing)]
    named = [file for file in files if patterns.name(file.path) or (file.old_path and patterns.name(file.old_path))]
    return sorted(named, key=lambda file: file.path)
