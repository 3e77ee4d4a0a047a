"""What a commit is worked on with: a tree to start from, and the objects that a tree is taken with."""

import asyncio
from pathlib import Path

from services.git import failures
from services.git.bases.builder import Bases
from services.git.bases.notes import read_notes
from services.git.bases.warming import Warming
from services.git.model import Base, Listener, Remote, Wanted, WorkingTree
from services.git.names import is_commit_id
from services.git.store import GitStore
from services.git.stores.mirrors import Mirrors
from services.git.stores.results import Results


class Preparing:
    """Finds commits in mirrors and result stores, and makes bases of them."""

    def __init__(self, store: GitStore, mirrors: Mirrors, bases: Bases, results: Results, warm_seconds: float) -> None:
        self._store = store
        self._mirrors = mirrors
        self._bases = bases
        self._results = results
        self.warming = Warming(self._warm, warm_seconds)

    async def prepare(self, remote: Remote, wanted: Wanted, report: Listener) -> Base:
        """Return a tree of the wanted commit.

        Raises:
            NotFound: REVISION_NOT_FOUND.
            FailedPrecondition: CLONE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        with self._bases.holding(remote.repository_id):
            base = await self._prepare_held(remote, wanted, report)
        if not wanted.result_commit_id and not is_commit_id(wanted.revision.decode("ascii", "replace")):
            self.warming.note(remote, wanted.revision or base.branch)
        return base

    async def takeable(
        self, repository_id: str, name: str, tree: WorkingTree, base_commit_id: str
    ) -> tuple[tuple[Path, ...], str]:
        """Return where the objects lie that a tree is taken with, and the commit below its layers (empty: unknown).

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
            FailedPrecondition: TAKE_FAILED.
        """
        if not self._mirrors.exists(repository_id):
            raise failures.repository_not_found(repository_id)
        if not tree.path.is_dir():
            raise failures.take_failed(name, FileNotFoundError(f"{tree.path} is no directory"))
        borrowed = await self._objects_of(repository_id, base_commit_id)
        layered_on = self._bases.commit_of(repository_id, tree.layers.lowers) if tree.layers else ""
        if layered_on and layered_on != base_commit_id:
            borrowed = tuple(dict.fromkeys((*borrowed, *await self._objects_of(repository_id, layered_on))))
        return borrowed, layered_on

    async def _warm(self, remote: Remote, branch: bytes) -> Base:
        with self._bases.holding(remote.repository_id):
            return await self._prepare_held(remote, Wanted(branch), lambda _: None)

    async def _prepare_held(self, remote: Remote, wanted: Wanted, report: Listener) -> Base:
        repository_id = remote.repository_id
        if wanted.result_commit_id:
            commit_id = wanted.result_commit_id
            if not self._mirrors.exists(repository_id) or not await self._results.has(repository_id, commit_id):
                raise failures.revision_not_found(commit_id)
            default = await self._mirrors.resolve(repository_id, b"")
            branch = default.branch if default else b""
            prepare = self._bases.prepare_result
        else:
            resolved = await self._mirrors.find(remote, wanted.revision, report)
            if resolved is None:
                raise failures.revision_not_found(wanted.revision or b"HEAD")
            commit_id, branch = resolved.commit_id, resolved.branch
            prepare = self._bases.prepare
        await self._store.remember_url(repository_id, remote.url)
        found = await prepare(repository_id, commit_id, remote.url, report)
        return Base(
            commit_id,
            found.layers,
            (self._mirrors.objects(repository_id),),
            branch,
            found.pins_path,
            await asyncio.to_thread(read_notes, found.place),
        )

    async def _objects_of(self, repository_id: str, commit_id: str) -> tuple[Path, ...]:
        """Return object directories that a sandbox may see, and that together hold the commit."""
        mirror = self._mirrors.objects(repository_id)
        if await self._mirrors.has(repository_id, commit_id):
            return (mirror,)
        if not await self._results.has(repository_id, commit_id):
            raise failures.revision_not_found(commit_id)
        # An earlier result: its base tree holds a copy of its objects, and only of its own.
        url = await self._store.url(repository_id) or ""
        with self._bases.holding(repository_id):
            base = await self._bases.prepare_result(repository_id, commit_id, url, lambda _: None)
        return (mirror, base.layers[0] / ".git" / "objects")
