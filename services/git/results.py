"""Result stores: what agents made, one bare repository beside each mirror. No sandbox ever sees one."""

import shutil
from pathlib import Path

from services.common.lock import LockHeldError
from services.git import failures
from services.git.gitcmd import Command, Git, GitError, Invocation
from services.git.gitcmd.commands import STRICT_FLAG
from services.git.locks import locked
from services.git.mirrors import Bounds, commit_of
from services.git.model import Result
from services.git.places import Places
from services.git.taking import Order, Taken, Taker

# Base trees of results are made by fetching a commit by its id.
_CONFIG = {
    "core.repositoryformatversion": "1",
    "extensions.preciousObjects": "true",
    "uploadpack.allowAnySHA1InWant": "true",
}


class Results:
    """Keeps results. Whatever comes in was checked; upstream's objects are borrowed from the mirror."""

    def __init__(self, git: Git, places: Places, taker: Taker, bounds: Bounds) -> None:
        self._git = git
        self._places = places
        self._taker = taker
        self._bounds = bounds

    async def store(self, repository_id: str) -> Path:
        """Return the store of a repository that has a mirror, after making it where it is missing."""
        store = self._places.result_store(repository_id)
        if store.is_dir():
            return store
        scratch = self._places.scratch()
        try:
            building = scratch / "results.git"
            await self._git.run(Command("init", ("--quiet", "--bare", "--template="), (str(building),)))
            for key, value in _CONFIG.items():
                await self._git.run(Command("config", (f"--file={building / 'config'}",), (key, value)))
            alternates = building / "objects" / "info" / "alternates"
            alternates.parent.mkdir(exist_ok=True)
            alternates.write_bytes(bytes(self._places.mirror(repository_id) / "objects") + b"\n")
            async with locked(self._places.result_lock(repository_id), self._bounds.lock_seconds):
                if not store.is_dir():
                    building.rename(store)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return store

    async def has(self, repository_id: str, commit_id: str) -> bool:
        """Whether the store, or the mirror under it, holds the commit."""
        return await commit_of(self._git, await self.store(repository_id), commit_id.encode()) is not None

    async def take(self, repository_id: str, result_id: str, order: Order, borrowed: tuple[Path, ...]) -> Result:
        """Take a working tree, as the result of this name.

        With the agent's own commits where it left some on top of the base. Where those do not hold (an object is
        missing or malformed) the files are taken all the same, as one commit on the base.

        Raises:
            FailedPrecondition: TAKE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        try:
            try:
                return await self._attempt(repository_id, result_id, order, borrowed, keep_commits=True)
            except GitError:
                return await self._attempt(repository_id, result_id, order, borrowed, keep_commits=False)
        except GitError as error:
            raise failures.take_failed(result_id, error) from error
        except LockHeldError as error:
            raise failures.repository_busy(repository_id) from error

    async def _attempt(
        self, repository_id: str, result_id: str, order: Order, borrowed: tuple[Path, ...], *, keep_commits: bool
    ) -> Result:
        store = await self.store(repository_id)
        self._places.check_room(self._bounds.min_free_bytes)
        scratch = self._places.scratch()
        try:
            taken = await self._taker.take(order, borrowed, scratch, keep_commits=keep_commits)
            if taken.pack is not None:
                async with locked(self._places.result_lock(repository_id), self._bounds.lock_seconds) as held:
                    await self._keep(store, result_id, order, taken, held)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        changed = taken.commit_id != order.base_commit_id
        return Result(taken.commit_id, changed, taken.agent_commits, taken.lost_repositories)

    async def _keep(self, store: Path, result_id: str, order: Order, taken: Taken, held: int) -> None:
        """Check every object of the pack and every link between them, then names the commit."""
        how = Invocation(git_dir=store, stdin_file=taken.pack, timeout_seconds=1800, held=(held,))
        await self._git.run(Command("index-pack", ("--stdin", STRICT_FLAG)), how)
        descends = Command("merge-base", ("--is-ancestor",), (order.base_commit_id, taken.commit_id))
        await self._git.run(descends, Invocation(git_dir=store))
        name = Command("update-ref", (), (f"refs/results/{result_id}", taken.commit_id))
        await self._git.run(name, Invocation(git_dir=store))
