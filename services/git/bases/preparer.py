"""Prepares what work on a commit needs: the tree to start from, and the objects to take the changed tree with."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.common.ids import NO_REMOTE
from services.git import failures
from services.git.bases.builder import BaseBuilder
from services.git.bases.found_submodules import FoundSubmodules
from services.git.bases.lfs import LfsTrees
from services.git.bases.notes import read_notes, with_reasons
from services.git.bases.submodules import Submodules
from services.git.bases.warming import BranchWarmer
from services.git.empty import EMPTY_COMMIT_ID
from services.git.gitcmd import GitError
from services.git.model import Base, ProgressListener, Remote, StartPoint, WorkingTree
from services.git.names import is_commit_id
from services.git.store import RepositoryRecords
from services.git.stores.mirrors import Mirrors
from services.git.stores.results import ResultStores
from services.git.stores.snapshots import Snapshots

# The commits of snapshots that were each begun from the one before, and of the agents in between.
_LONGEST_CHAIN: Final = 100


class BasePreparer:
    """Finds commits in mirrors and result stores, and has bases of them built."""

    def __init__(
        self,
        records: RepositoryRecords,
        mirrors: Mirrors,
        bases: BaseBuilder,
        results: ResultStores,
        snapshots: Snapshots,
        *,
        submodules: Submodules,
        lfs: LfsTrees,
        warm_seconds: float,
    ) -> None:
        self._records = records
        self._mirrors = mirrors
        self._bases = bases
        self._results = results
        self._snapshots = snapshots
        self._submodules = submodules
        self._lfs = lfs
        self.warmer = BranchWarmer(self._warm, warm_seconds)

    async def prepare(self, remote: Remote, start: StartPoint, report: ProgressListener) -> Base:
        """Return a base of what to start from.

        Raises:
            NotFound: REVISION_NOT_FOUND, SNAPSHOT_NOT_FOUND.
            FailedPrecondition: CLONE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        with self._bases.holding(remote.repository_id):
            if start.snapshot_id:
                return await self._prepare_snapshot(remote, start.snapshot_id, report, git_lfs=start.git_lfs)
            base = await self._prepare_held(remote, start, report)
        if not start.result_commit_id and not is_commit_id(start.revision.decode("ascii", "replace")):
            self.warmer.note(remote, start.revision or base.branch)
        return base

    async def prepare_empty(self, repository_id: str, result_commit_id: str, snapshot_id: str) -> Base:
        """Return a base for work that has no remote: without files, or with those of a result or a snapshot of it.

        Raises:
            NotFound: REVISION_NOT_FOUND, SNAPSHOT_NOT_FOUND.
            FailedPrecondition: CLONE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        with self._bases.holding(repository_id):
            await self._mirrors.make_empty(repository_id)
            if snapshot_id:
                snapshot = await self._snapshots.get(snapshot_id)
                if snapshot.repository_id != repository_id:
                    raise failures.snapshot_not_found(snapshot_id, repository_id)
                result_commit_id = snapshot.commit_id
            commit_id = result_commit_id or EMPTY_COMMIT_ID
            if not await self._results.has(repository_id, commit_id):
                raise failures.revision_not_found(commit_id)
            prepare = self._bases.prepare if commit_id == EMPTY_COMMIT_ID else self._bases.prepare_result
            cached = await prepare(repository_id, commit_id, "", lambda _: None)
        compared_with = EMPTY_COMMIT_ID if snapshot_id else commit_id
        objects = (self._mirrors.objects(repository_id),)
        return Base(compared_with, cached.layers, objects, b"", cached.pins_path, head_commit_id=commit_id)

    async def objects_to_take_with(
        self, repository_id: str, name: str, tree: WorkingTree, base_commit_id: str
    ) -> tuple[tuple[Path, ...], str]:
        """Return the object directories needed to take a tree, and the commit below its layers (empty: unknown).

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            FailedPrecondition: TAKE_FAILED.
        """
        if repository_id.startswith(NO_REMOTE):
            await self._mirrors.make_empty(repository_id)
        if not self._mirrors.exists(repository_id):
            raise failures.repository_not_found(repository_id)
        if not tree.path.is_dir():
            raise failures.take_failed(name, FileNotFoundError(f"{tree.path} is no directory"))
        borrowed = await self._objects_of(repository_id, base_commit_id)
        layered_on = (
            self._bases.commit_of(repository_id, tree.layers.lowers) if tree.layers and tree.layers.lowers else ""
        )
        # The index is built from the commit below the layers first, so its objects are needed too.
        if layered_on and layered_on != base_commit_id:
            borrowed = tuple(dict.fromkeys((*borrowed, *await self._objects_of(repository_id, layered_on))))
        return borrowed, layered_on

    async def _warm(self, remote: Remote, branch: bytes) -> Base:
        with self._bases.holding(remote.repository_id):
            return await self._prepare_held(remote, StartPoint(branch), lambda _: None)

    async def _prepare_snapshot(
        self, remote: Remote, snapshot_id: str, report: ProgressListener, *, git_lfs: bool
    ) -> Base:
        """Return a base with the tree of a snapshot, of the commit that the snapshot's results are compared with."""
        repository_id = remote.repository_id
        snapshot = await self._snapshots.get(snapshot_id)
        if snapshot.repository_id != repository_id:
            raise failures.snapshot_not_found(snapshot_id, repository_id)
        at = StartPoint(result_commit_id=snapshot.commit_id, git_lfs=git_lfs)
        tree = await self._prepare_held(remote, at, report)
        base_commit_id = await self._of_remote(repository_id, snapshot.base_commit_id)
        head_commit_id = await self._snapshots.head_of(snapshot)
        return replace(tree, commit_id=base_commit_id, head_commit_id=head_commit_id)

    async def _of_remote(self, repository_id: str, commit_id: str) -> str:
        """Return a snapshot's base; when that is a snapshot too, as before decision 47, the first one's base."""
        if not await self._mirrors.revisions.has(repository_id, commit_id):
            for earlier in await self._results.first_parents(repository_id, commit_id, _LONGEST_CHAIN):
                if await self._mirrors.revisions.has(repository_id, earlier):
                    return earlier
        return commit_id

    async def _prepare_held(self, remote: Remote, start: StartPoint, report: ProgressListener) -> Base:
        repository_id = remote.repository_id
        if start.result_commit_id:
            commit_id = start.result_commit_id
            if not self._mirrors.exists(repository_id) or not await self._results.has(repository_id, commit_id):
                raise failures.revision_not_found(commit_id)
            default = await self._mirrors.revisions.resolve(repository_id, b"")
            branch = default.branch if default else b""
            prepare = self._bases.prepare_result
        else:
            resolved = await self._mirrors.find(remote, start.revision, report)
            if resolved is None:
                is_empty = await self._mirrors.revisions.is_empty(repository_id)
                raise failures.revision_not_found(start.revision or b"HEAD", of_empty=is_empty)
            commit_id, branch = resolved.commit_id, resolved.branch
            prepare = self._bases.prepare
        await self._records.remember_url(repository_id, remote.url)
        with contextlib.ExitStack() as held:
            found = await self._find_submodules(remote, start, commit_id, held, report)
            cached = await prepare(repository_id, commit_id, remote.url, report, found)
            if start.git_lfs:
                cached, notes = await self._lfs.filled(cached, remote, found.had, report)
            else:
                notes = await asyncio.to_thread(read_notes, cached.path)
        return Base(
            commit_id,
            cached.layers,
            (self._mirrors.objects(repository_id), *self._submodules.objects(found)),
            branch,
            cached.pins_path,
            with_reasons(notes, dict(found.missing)),
            head_commit_id=commit_id,
        )

    async def _find_submodules(
        self, remote: Remote, start: StartPoint, commit_id: str, held: contextlib.ExitStack, report: ProgressListener
    ) -> FoundSubmodules:
        """Fetch the submodules of a commit, whose mirrors are held from removal. What cannot be had is not an error."""
        repository_id, result, of_remote = remote.repository_id, None, commit_id
        if start.result_commit_id and not await self._mirrors.revisions.has(repository_id, commit_id):
            result = (await self._results.store(repository_id), commit_id)
            of_remote = await self._of_remote(repository_id, commit_id)

        def hold(mirror_id: str) -> None:
            held.enter_context(self._bases.holding(mirror_id))

        try:
            return await self._submodules.find(remote, of_remote, hold, report, result=result)
        except GitError as error:
            raise failures.clone_failed(repository_id, error) from error

    async def _objects_of(self, repository_id: str, commit_id: str) -> tuple[Path, ...]:
        """Return object directories that together hold the commit, and that a sandbox may see."""
        mirror = self._mirrors.objects(repository_id)
        if await self._mirrors.revisions.has(repository_id, commit_id):
            return (mirror,)
        if not await self._results.has(repository_id, commit_id):
            raise failures.revision_not_found(commit_id)
        # An earlier result: its base tree holds a copy of that result's objects, and of no other's.
        url = await self._records.url(repository_id) or ""
        with self._bases.holding(repository_id):
            base = await self._bases.prepare_result(repository_id, commit_id, url, lambda _: None)
        return (mirror, base.layers[0] / ".git" / "objects")
