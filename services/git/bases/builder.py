"""Builds base trees: one commit each, built once, never changed, where any number of workspaces start.

A commit near one that has a base already becomes a layer over it; any other becomes a whole tree.
"""

import asyncio
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git import failures
from services.git.bases.deltas import Delta, DeltaLayers
from services.git.bases.found_submodules import NO_SUBMODULES, FoundSubmodules
from services.git.bases.notes import take_notes, write_notes
from services.git.bases.racy_index import BY_TIME_AND_SIZE, prevent_racy_index
from services.git.bases.submodule_trees import check_out, configure, directories
from services.git.disk.base_cache import BaseCache, CachedBase
from services.git.disk.budget import DiskBudget
from services.git.exclude import exclude_boatyard
from services.git.gitcmd import Command, Git, GitError, Invocation
from services.git.model import Progress, ProgressListener
from services.git.paths import GitPaths
from services.git.single_flight import SingleFlight

# More at once would slow each other down: a checkout is bound by the disk and by one processor.
_CONCURRENT_BUILDS: Final = 4


@dataclass(frozen=True, slots=True)
class _Order:
    """One base that is asked for, and where it is kept."""

    path: Path
    repository_id: str
    commit_id: str
    origin_url: str
    submodules: FoundSubmodules


class BaseBuilder:
    """Builds base trees from mirrors and result stores. Each is built aside and renamed into place when it is whole.

    Without `deltas`, on machines without overlays, every base is a whole tree, and workspaces are copies of them.
    """

    def __init__(
        self, git: Git, paths: GitPaths, cache: BaseCache, budget: DiskBudget, deltas: DeltaLayers | None
    ) -> None:
        self._git = git
        self._paths = paths
        self._cache = cache
        self._budget = budget
        self._deltas = deltas
        self._single_flight = SingleFlight[CachedBase]()
        self._building = asyncio.Semaphore(_CONCURRENT_BUILDS)

    def holding(self, repository_id: str) -> AbstractContextManager[None]:
        """Protect everything of the repository from removal while a base of it is built and handed out."""
        return self._cache.holding(repository_id)

    async def prepare(
        self,
        repository_id: str,
        commit_id: str,
        origin_url: str,
        listener: ProgressListener,
        submodules: FoundSubmodules = NO_SUBMODULES,
    ) -> CachedBase:
        """Return the tree of a commit that the mirror holds, with those of its submodules that could be had.

        Raises:
            FailedPrecondition: CLONE_FAILED, when git cannot check it out.
            Exhausted: DISK_FULL.
        """
        path = self._paths.base(repository_id, commit_id, submodules.key)
        return await self._in_place(_Order(path, repository_id, commit_id, origin_url, submodules), listener)

    async def prepare_result(
        self,
        repository_id: str,
        commit_id: str,
        origin_url: str,
        listener: ProgressListener,
        submodules: FoundSubmodules = NO_SUBMODULES,
    ) -> CachedBase:
        """Return the tree of a commit that the result store or its mirror holds. Raises the errors of `prepare`."""
        path = self._paths.base(repository_id, commit_id, submodules.key)
        if not path.is_dir():
            path = self._paths.result_base(repository_id, commit_id, submodules.key)
        return await self._in_place(_Order(path, repository_id, commit_id, origin_url, submodules), listener)

    def commit_of(self, repository_id: str, layers: tuple[Path, ...]) -> str:
        """Return the commit whose base these layers are; empty when they are no base of this repository."""
        path = layers[0].parent
        base_paths = {self._paths.base(repository_id, path.name), self._paths.result_base(repository_id, path.name)}
        if path not in base_paths:
            return ""
        cached = self._cache.find(path)
        return cached.commit_id if cached is not None and cached.layers == layers else ""

    async def _in_place(self, order: "_Order", listener: ProgressListener) -> CachedBase:
        if (cached := self._cache.hand_out(order.path)) is not None:
            return cached

        async def build(report: ProgressListener) -> CachedBase:
            try:
                async with self._building:
                    await self._build(order, report)
            except GitError as error:
                raise failures.clone_failed(order.repository_id, error) from error
            made = self._cache.hand_out(order.path)
            if made is None:
                raise RuntimeError(f"{order.path} was built, and is missing")
            return made

        return await self._single_flight.join(order.path, build, listener)

    async def _build(self, order: "_Order", report: ProgressListener) -> None:
        report(Progress("Preparing the tree"))
        scratch = self._paths.scratch()
        building = scratch / "base"
        tree = building / "tree"
        submodules = order.submodules.had
        try:
            building.mkdir()
            await self._make_repository(tree, order)
            delta = await self._plan(order, tree)
            async with self._budget.reserve(await self._expected_bytes(order.repository_id, delta)) as reserve:
                await self._fill(tree, order, delta)
                # Those of a layer are filled by the base below.
                inner = [] if delta else directories(tree, submodules)
                contents = await prevent_racy_index(self._git, tree, inner)
                below = delta.below if delta else None
                write_notes(building, await take_notes(self._git, tree, submodules, below.path if below else None))
                await reserve.resize(contents.bytes)
                size = (contents.bytes, contents.inodes)
                self._cache.put(building, order.path, size, below, order.submodules.mirror_ids)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _plan(self, order: "_Order", tree: Path) -> Delta | None:
        if self._deltas is None:
            return None
        return await self._deltas.plan(order.repository_id, order.commit_id, tree / ".git", order.submodules.key)

    async def _expected_bytes(self, repository_id: str, delta: Delta | None) -> int:
        if delta is not None:
            # The files that differ are taken to be of average size.
            return delta.size * delta.below.whole.bytes // delta.below.whole.inodes
        return await asyncio.to_thread(self._budget.expected_tree, repository_id)

    async def _fill(self, tree: Path, order: "_Order", delta: Delta | None) -> None:
        submodules = order.submodules.had
        if self._deltas is not None and delta is not None:
            await self._deltas.write(delta, order.commit_id, tree)
            await configure(self._git, tree, (each for each in submodules if each.is_outer))
            return
        inside = Invocation(git_dir=tree / ".git", cwd=tree, timeout_seconds=1800)
        await self._git.run(Command("checkout", ("--quiet", "--detach"), (order.commit_id,)), inside)
        await check_out(self._git, self._paths, tree, submodules, self._copied)

    @property
    def _copied(self) -> dict[str, str]:
        # A copy keeps the files' times and sizes but has inodes of its own; comparing those, git would read every file
        # at every `status` (measured on 5,000 files: 300 ms against 40).
        return BY_TIME_AND_SIZE if self._deltas is None else {}

    async def _make_repository(self, tree: Path, order: "_Order") -> None:
        mirror = self._paths.mirror(order.repository_id)
        flags = ("--quiet", "--shared", "--no-checkout", "--template=", "--no-recurse-submodules")
        await self._git.run(Command("clone", flags, (str(mirror), str(tree))), Invocation(protocol="file"))
        exclude_boatyard(tree / ".git")
        config = f"--file={tree / '.git' / 'config'}"
        for key, value in {"remote.origin.url": order.origin_url, **self._copied}.items():
            await self._git.run(Command("config", (config,), (key, value)))
        await self._borrow_result(order.repository_id, order.commit_id, tree)

    async def _borrow_result(self, repository_id: str, commit_id: str, tree: Path) -> None:
        """Copy the objects of a result into the tree, because no sandbox may see the store that holds them."""
        inside = Invocation(git_dir=tree / ".git", protocol="file", expected_codes=(0, 1, 128))
        exists = Command("rev-parse", ("--verify", "--quiet"), (f"{commit_id}^{{commit}}",))
        if (await self._git.run(exists, inside)).code == 0:
            return
        store = self._paths.result_store(repository_id)
        flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
        await self._git.run(
            Command("fetch", flags, (str(store), commit_id)), Invocation(git_dir=tree / ".git", protocol="file")
        )
