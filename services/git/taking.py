"""Takes what is to be kept of working trees: results, snapshots, artifacts.

Here it is found out what git in the sandbox cannot know: where the tree began, where its submodules may be, and whether
there is where to bring what belongs to Git LFS.
"""

from collections.abc import Sequence
from dataclasses import replace

from services.git import failures
from services.git.bases.preparer import BasePreparer
from services.git.bases.submodule_links import SubmoduleLinks
from services.git.model import (
    Remote,
    ResultCommit,
    Snapshot,
    SnapshotSpec,
    SubmoduleLink,
    TakenArtifacts,
    TakeSpec,
    TreeOrigin,
    WorkingTree,
)
from services.git.store import RepositoryRecords
from services.git.stores.artifacts import ArtifactStore
from services.git.stores.commits import CommitStores
from services.git.stores.lfs_transfer import LfsTransfer
from services.git.stores.mirrors import Mirrors
from services.git.stores.results import ResultStores
from services.git.stores.retention import ResultRetention
from services.git.stores.snapshots import Snapshots
from services.git.worktree.submodule_patches import WrittenSubmodule
from services.redaction.strand import Redactor


class Taking:
    """Takes trees into the stores."""

    def __init__(
        self,
        records: RepositoryRecords,
        stores: CommitStores,
        *,
        mirrors: Mirrors,
        preparer: BasePreparer,
        submodule_links: SubmoduleLinks,
        lfs: LfsTransfer,
        results: ResultStores,
        retention: ResultRetention,
        snapshots: Snapshots,
        artifacts: ArtifactStore,
    ) -> None:
        self._records = records
        self._stores = stores
        self._mirrors = mirrors
        self._preparer = preparer
        self._submodule_links = submodule_links
        self._lfs = lfs
        self._results = results
        self._retention = retention
        self._snapshots = snapshots
        self._artifacts = artifacts

    async def result(
        self, repository_id: str, result_id: str, spec: TakeSpec, remote: Remote | None = None
    ) -> ResultCommit:
        """Take a working tree as a commit in the result store.

        With `remote`, the submodules' remotes are asked for commits that the agent may have pushed.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            FailedPrecondition: TAKE_FAILED, SANDBOX_UNAVAILABLE, WORKSPACE_HELD.
        """
        borrowed, layered_on = await self._preparer.objects_to_take_with(
            repository_id, result_id, spec.tree, spec.base_commit_id
        )
        with failures.of_sandboxes():
            head = await self._began_at(repository_id, layered_on)
            commits = spec.base_commit_id, layered_on or spec.base_commit_id, head or spec.base_commit_id
            links = await self._moved_links(repository_id, result_id, spec.tree, commits, remote)
            git_lfs = spec.git_lfs and await self._uses_lfs(repository_id)
            spec = replace(spec, layered_on=layered_on, links=links, head_commit_id=head, git_lfs=git_lfs)
            return await self._retention.take(repository_id, result_id, spec, borrowed)

    async def snapshot(self, spec: SnapshotSpec) -> Snapshot:
        """Keep a working tree as it is. See Snapshots.take.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
            NotFound, FailedPrecondition, Exhausted: as `result`.
        """
        borrowed, layered_on = await self._preparer.objects_to_take_with(
            spec.repository_id, spec.snapshot_id, spec.tree, spec.base_commit_id
        )
        with failures.of_sandboxes():
            head = await self._began_at(spec.repository_id, layered_on)
            commits = spec.base_commit_id, layered_on or spec.base_commit_id, head or spec.base_commit_id
            links = await self._moved_links(spec.repository_id, spec.snapshot_id, spec.tree, commits)
            spec = replace(spec, git_lfs=spec.git_lfs and await self._uses_lfs(spec.repository_id))
            return await self._snapshots.take(spec, borrowed, layered_on, links, head)

    async def artifacts(
        self,
        artifacts_id: str,
        tree: WorkingTree,
        patterns: Sequence[str],
        redactor: Redactor,
        origin: TreeOrigin | None = None,
    ) -> TakenArtifacts:
        """Keep files of a working tree, without secrets. With its origin, what was done in submodules, too, as patches.

        Raises:
            FailedPrecondition: TAKE_FAILED, RESULT_TOO_LARGE, SANDBOX_UNAVAILABLE, WORKSPACE_HELD.
            Exhausted: DISK_FULL.
        """
        with failures.of_sandboxes():
            written = await self._written_submodules(artifacts_id, tree, origin) if origin else ()
            return await self._artifacts.take(artifacts_id, tree, patterns, redactor, written)

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
        store = await self._stores.store_with(origin.repository_id, origin.commit_id)
        remote = Remote(origin.repository_id, await self._records.url(origin.repository_id) or "")
        with self._submodule_links.reading(name):
            return await self._submodule_links.written(store, remote, tree, origin.commit_id, origin.leave_out)
