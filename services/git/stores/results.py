"""Result stores: the results of agents, one bare repository beside each mirror. No sandbox ever sees one."""

import asyncio
import re
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from services.common.lock import LockHeldError
from services.git import failures
from services.git.empty import EMPTY_COMMIT_ID
from services.git.gitcmd import Command, Git, GitError, GitFailed, Invocation, OutputTooLarge
from services.git.gitcmd.commands import STRICT_FLAG
from services.git.model import ResultCommit, TakeSpec
from services.git.paths import GitPaths
from services.git.stores.lfs_objects import LfsObjects
from services.git.stores.module_files import ModuleFiles
from services.git.stores.repository import StoreLimits, commit_of, locked, remove_stale_locks
from services.git.worktree.links import DanglingLinks
from services.git.worktree.size import TreeLimits, TreeTooLarge, check_size
from services.git.worktree.taker import Manner, TakenResult, Taker

# Base trees of results are made by fetching a commit by its id.
_CONFIG = {"uploadpack.allowAnySHA1InWant": "true"}
# No tree borrows from a store, but a caller who has just been given a commit may still be working with it.
_UNNAMED_KEPT = "12.hours.ago"
_UNNAMED_KEPT_SECONDS = 12 * 3600.0
# All of taking one tree: below what its caller waits, so that the caller is told what took so long.
_TAKE_SECONDS = 540.0
# Objects that are not accepted are found a few at a time.
_MOST_TRIES = 8
_REFUSED_OBJECT = re.compile(r"^error: object ([0-9a-f]{40,64}): (.+)$", re.MULTILINE)
# A file in the store whose time says when a ref was last removed.
_LOOSENED = "loosened"


class ResultStores:
    """Stores results. Everything that comes in is checked first; upstream's objects are borrowed from the mirror."""

    def __init__(
        self, git: Git, paths: GitPaths, taker: Taker, limits: StoreLimits, tree_limits: TreeLimits | None = None
    ) -> None:
        self._git = git
        self._paths = paths
        self._taker = taker
        self._limits = limits
        self._tree_limits = tree_limits or TreeLimits()
        self._files = ModuleFiles(git)
        self._lfs = LfsObjects(paths)

    async def store(self, repository_id: str) -> Path:
        """Return the store of a repository that has a mirror; make it when it is missing."""
        store = self._paths.result_store(repository_id)
        if store.is_dir():
            return store
        scratch = self._paths.scratch()
        try:
            building = scratch / "results.git"
            await self._git.run(Command("init", ("--quiet", "--bare", "--template="), (str(building),)))
            for key, value in _CONFIG.items():
                await self._git.run(Command("config", (f"--file={building / 'config'}",), (key, value)))
            alternates = building / "objects" / "info" / "alternates"
            alternates.parent.mkdir(exist_ok=True)
            alternates.write_bytes(bytes(self._paths.mirror(repository_id) / "objects") + b"\n")
            async with locked(self._paths.result_lock(repository_id), self._limits.lock_seconds):
                if not store.is_dir():
                    building.rename(store)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return store

    async def has(self, repository_id: str, commit_id: str) -> bool:
        """True when the store, or the mirror that it borrows from, holds the commit."""
        return await commit_of(self._git, await self.store(repository_id), commit_id.encode()) is not None

    async def raw_commit(self, repository_id: str, commit_id: str) -> bytes:
        """Return a commit object of the store, its headers and its message. Raises GitError."""
        read = Command("cat-file", (), ("commit", commit_id))
        return (await self._git.run(read, Invocation(git_dir=await self.store(repository_id)))).stdout

    async def first_parents(self, repository_id: str, commit_id: str, limit: int) -> list[str]:
        """Return a commit, its first parent, that one's first parent, and so on. Raises GitError."""
        walk = Command("rev-list", ("--first-parent", f"--max-count={limit}"), (commit_id,))
        listing = await self._git.run(walk, Invocation(git_dir=await self.store(repository_id)))
        return listing.stdout.decode("ascii").split()

    async def take(self, repository_id: str, ref: str, spec: TakeSpec, borrowed: tuple[Path, ...]) -> ResultCommit:
        """Take a working tree as a commit, and point a ref of the store at it.

        The agent's own commits on top of the base are kept. If they are unusable (an object is missing or malformed),
        the files are taken all the same, as one commit on the base. Files that this store does not accept are left out.

        Raises:
            FailedPrecondition: TAKE_FAILED, RESULT_TOO_LARGE.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        name = ref.rpartition("/")[2]
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                await asyncio.to_thread(check_size, spec.tree, self._tree_limits)
                return await self._persist(repository_id, ref, spec, borrowed)
        except (TreeTooLarge, OutputTooLarge) as error:
            raise failures.result_too_large(name, error) from error
        except TimeoutError as error:
            raise failures.take_failed(name, TimeoutError(f"it took longer than {_TAKE_SECONDS:g} s")) from error
        except GitError as error:
            raise failures.take_failed(name, error, spec.tree.path) from error
        except LockHeldError as error:
            raise failures.repository_busy(repository_id) from error

    async def remove_ref(self, repository_id: str, ref: str) -> None:
        """Remove a ref; a missing one is a success. Objects that only it held go with a later `compact`.

        Raises:
            Exhausted: REPOSITORY_BUSY.
        """
        store = self._paths.result_store(repository_id)
        if not store.is_dir():
            return
        try:
            async with locked(self._paths.result_lock(repository_id), self._limits.lock_seconds) as lock_fd:
                remove_stale_locks(store)
                await self._git.run(
                    Command("update-ref", ("-d",), (ref,)), Invocation(git_dir=store, inherited_fds=(lock_fd,))
                )
                (store / _LOOSENED).touch()
        except LockHeldError as error:
            raise failures.repository_busy(repository_id) from error

    async def names(self, repository_id: str, prefix: str) -> list[str]:
        """Return the refs of a store below a prefix that ends with a slash, without the prefix."""
        listing = await self._git.run(
            Command("for-each-ref", ("--format=%(refname)",), (prefix,)),
            Invocation(git_dir=self._paths.result_store(repository_id)),
        )
        return [line.decode().removeprefix(prefix) for line in listing.stdout.splitlines()]

    def stores(self) -> list[str]:
        """Return the ids of the repositories that have a store."""
        return sorted(path.stem for path in self._paths.results.glob("*.git"))

    def stores_that_lost_refs(self, before: datetime) -> list[str]:
        """Return the repositories whose stores lost their latest ref before a time, the longest ago first."""
        marks = {mark: mark.stat().st_mtime for mark in self._paths.results.glob(f"*.git/{_LOOSENED}")}
        return [
            mark.parent.stem
            for mark in sorted(marks, key=lambda each: marks[each])
            if marks[mark] <= before.timestamp()
        ]

    async def compact(self, repository_id: str) -> None:
        """Pack all reachable objects into one pack, and remove those that have been unreachable for hours.

        Raises:
            Exhausted: REPOSITORY_BUSY.
            GitError: git failed.
        """
        store = self._paths.result_store(repository_id)
        try:
            async with locked(self._paths.result_lock(repository_id), self._limits.lock_seconds) as lock_fd:
                (store / _LOOSENED).unlink(missing_ok=True)
                invocation = Invocation(git_dir=store, timeout_seconds=1800, inherited_fds=(lock_fd,))
                flags = ("-A", "-d", "-l", "-q", f"--unpack-unreachable={_UNNAMED_KEPT}")
                await self._git.run(Command("repack", flags), invocation)
                await self._git.run(Command("prune", (f"--expire={_UNNAMED_KEPT}",)), invocation)
                for commit_id in await asyncio.to_thread(self._lfs.commits, repository_id):
                    if await commit_of(self._git, store, commit_id.encode()) is None:
                        await asyncio.to_thread(self._lfs.forget, repository_id, commit_id)
                await asyncio.to_thread(self._lfs.remove_unnamed, repository_id, _UNNAMED_KEPT_SECONDS)
        except LockHeldError as error:
            raise failures.repository_busy(repository_id) from error

    async def _persist(self, repository_id: str, ref: str, spec: TakeSpec, borrowed: tuple[Path, ...]) -> ResultCommit:
        """Try again without what was not accepted: first objects, then the agent's commits. Raises GitError."""
        manner = Manner()
        for _ in range(_MOST_TRIES):
            try:
                return await self._attempt(repository_id, ref, spec, borrowed, manner)
            except GitFailed as error:
                if new := _refused_objects(error).items() - manner.refused.items():
                    manner = replace(manner, refused={**manner.refused, **dict(new)})
                elif manner.keep_commits:
                    manner = replace(manner, keep_commits=False)
                else:
                    raise
            except DanglingLinks as error:
                manner = replace(manner, keep_commits=False, dangling=manner.dangling | error.paths)
            except GitError:
                if not manner.keep_commits:
                    raise
                manner = replace(manner, keep_commits=False)
        return await self._attempt(repository_id, ref, spec, borrowed, manner)

    async def _attempt(
        self, repository_id: str, ref: str, spec: TakeSpec, borrowed: tuple[Path, ...], manner: Manner
    ) -> ResultCommit:
        store = await self.store(repository_id)
        self._paths.check_room(self._limits.min_free_bytes)
        scratch = self._paths.scratch()
        try:
            taken = await self._taker.take(spec, borrowed, scratch, manner)
            async with locked(self._paths.result_lock(repository_id), self._limits.lock_seconds) as lock_fd:
                remove_stale_locks(store)
                if taken.lfs.pointers:
                    await asyncio.to_thread(self._lfs.keep_made, repository_id, taken.commit_id, taken.lfs)
                await self._store_result(repository_id, ref, spec, taken, lock_fd)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        changed = taken.commit_id != spec.base_commit_id
        return ResultCommit(taken.commit_id, changed, taken.agent_commits, taken.caveats)

    async def _store_result(
        self, repository_id: str, ref: str, spec: TakeSpec, taken: TakenResult, lock_fd: int
    ) -> None:
        """Check every object of the pack and every link between them, then point the ref at the commit.

        Raises DanglingLinks, GitError.
        """
        store = self._paths.result_store(repository_id)
        if taken.pack is not None:
            invocation = Invocation(
                git_dir=store, stdin_file=taken.pack, timeout_seconds=1800, inherited_fds=(lock_fd,)
            )
            await self._git.run(Command("index-pack", ("--stdin", STRICT_FLAG)), invocation)
            if spec.base_commit_id != EMPTY_COMMIT_ID:
                descends = Command("merge-base", ("--is-ancestor",), (spec.base_commit_id, taken.commit_id))
                await self._git.run(descends, Invocation(git_dir=store))
            if taken.agent_commits:
                await self._check_history(store, self._paths.mirror(repository_id), spec, taken.commit_id)
        name = Command("update-ref", (), (ref, taken.commit_id))
        await self._git.run(name, Invocation(git_dir=store, inherited_fds=(lock_fd,)))

    async def _check_history(self, store: Path, mirror: Path, spec: TakeSpec, commit_id: str) -> None:
        """Raise DanglingLinks when a commit of the agent's links to a submodule's commit that nobody is known to have.

        What the last tree links to has been judged. What the agent merged is its remote's own, and in the mirror.
        """
        began = [each for each in (spec.base_commit_id, spec.head_commit_id) if each not in {"", EMPTY_COMMIT_ID}]
        written = await self._files.written_links(store, commit_id, began)
        if not written:
            return
        trees = [await self._files.all_links(store, each) for each in (*began, commit_id)]
        known = {link.commit_id for link in spec.links if link.is_published}.union(*(tree.values() for tree in trees))
        for writer, linked in written.items():
            if linked - known and await commit_of(self._git, mirror, writer.encode()) is None:
                raise DanglingLinks(frozenset())


def _refused_objects(error: GitFailed) -> dict[bytes, str]:
    """Return the objects that git's check refuses, by their ids, and why."""
    return {object_id.encode(): why for object_id, why in _REFUSED_OBJECT.findall(error.stderr)}
