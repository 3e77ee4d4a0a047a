"""Base trees: one checked-out commit each, made once, never changed, the start of any number of workspaces.

Those of results are for a check that runs once: they are removed an hour after their last use.
"""

import asyncio
import errno
import os
import shutil
import time
from pathlib import Path
from typing import Final

from services.git import failures
from services.git.flights import Flights, Listener
from services.git.gitcmd import Command, Git, GitError, Invocation
from services.git.model import Progress
from services.git.places import Places

# Git reads about 300 MB/s to compare content; waiting for the next second takes half of one.
_QUICKLY_READ_BYTES: Final = 64 * 1024 * 1024
# Long after whoever asked for the tree has made a workspace of it.
_RESULT_KEPT_SECONDS: Final = 3600


class Bases:
    """Makes base trees from mirrors and result stores. Each is built aside and renamed when it is whole."""

    def __init__(self, git: Git, places: Places) -> None:
        self._git = git
        self._places = places
        self._flights = Flights[Path]()

    async def prepare(self, repository_id: str, commit_id: str, origin_url: str, listener: Listener) -> Path:
        """Return the tree of a commit that the mirror holds.

        Raises:
            FailedPrecondition: CLONE_FAILED, when git cannot check it out.
            Exhausted: DISK_FULL.
        """
        place = self._places.base(repository_id, commit_id)
        return await self._in_place(place, repository_id, commit_id, origin_url, listener)

    async def prepare_result(self, repository_id: str, commit_id: str, origin_url: str, listener: Listener) -> Path:
        """Return the tree of a commit that the result store holds, or the mirror under it. Raises: as `prepare`."""
        await asyncio.to_thread(self.sweep)
        place = self._places.base(repository_id, commit_id)
        if not place.is_dir():
            place = self._places.result_base(repository_id, commit_id)
        return await self._in_place(place, repository_id, commit_id, origin_url, listener)

    def sweep(self, kept_seconds: float = _RESULT_KEPT_SECONDS) -> None:
        """Remove the trees of results that nobody has asked for since `kept_seconds`. Blocks."""
        for place in self._places.result_bases.glob("*/*"):
            if time.time() - place.stat().st_mtime > kept_seconds:
                rubbish = self._places.scratch()
                place.rename(rubbish / "base")
                shutil.rmtree(rubbish, ignore_errors=True)

    async def _in_place(
        self, place: Path, repository_id: str, commit_id: str, origin_url: str, listener: Listener
    ) -> Path:
        tree = place / "tree"
        if tree.is_dir():
            os.utime(place)
            return tree

        async def build(report: Listener) -> Path:
            try:
                await self._build(place, repository_id, commit_id, origin_url, report)
            except GitError as error:
                raise failures.clone_failed(repository_id, error) from error
            return tree

        return await self._flights.join((repository_id, commit_id), build, listener)

    async def _build(self, place: Path, repository_id: str, commit_id: str, origin_url: str, report: Listener) -> None:
        report(Progress("Preparing the tree"))
        scratch = self._places.scratch()
        try:
            tree = scratch / "tree"
            mirror = self._places.mirror(repository_id)
            flags = ("--quiet", "--shared", "--no-checkout", "--template=", "--no-recurse-submodules")
            await self._git.run(Command("clone", flags, (str(mirror), str(tree))), Invocation(protocol="file"))
            config = f"--file={tree / '.git' / 'config'}"
            await self._git.run(Command("config", (config,), ("remote.origin.url", origin_url)))
            await self._borrow_result(repository_id, commit_id, tree)
            inside = Invocation(git_dir=tree / ".git", cwd=tree, timeout_seconds=1800)
            await self._git.run(Command("checkout", ("--quiet", "--detach"), (commit_id,)), inside)
            await self._settle(tree)
            _move_into_place(scratch, place)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _borrow_result(self, repository_id: str, commit_id: str, tree: Path) -> None:
        """Copy the objects of a result into the tree, for no sandbox may see the store that it lies in."""
        inside = Invocation(git_dir=tree / ".git", protocol="file", expected_codes=(0, 1, 128))
        exists = Command("rev-parse", ("--verify", "--quiet"), (f"{commit_id}^{{commit}}",))
        if (await self._git.run(exists, inside)).code == 0:
            return
        store = self._places.result_store(repository_id)
        flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
        await self._git.run(
            Command("fetch", flags, (str(store), commit_id)), Invocation(git_dir=tree / ".git", protocol="file")
        )

    async def _settle(self, tree: Path) -> None:
        """Make the files older than the index, by the second, and write the index once more.

        Git trusts its index only for files that are older than it, and reads all others at each `status`: in every
        workspace over this base, for ever (measured: 9 ms against 4 on 236 files).
        """
        if not await asyncio.to_thread(_make_older, tree):
            await asyncio.sleep(1.02 - time.time() % 1)
        inside = Invocation(git_dir=tree / ".git", cwd=tree, timeout_seconds=1800)
        await self._git.run(Command("update-index", ("-q", "--refresh")), inside)
        os.utime(tree / ".git" / "index")


def _make_older(tree: Path) -> bool:
    """Set the times of all files two seconds back.

    Git then reads each of them once more, so a tree that takes longer to read than to wait for is left as it is, and
    the answer is False.
    """
    files: list[Path] = []
    for folder, directories, names in os.walk(tree):
        if Path(folder) == tree:
            directories.remove(".git")
        # A link to a directory is among the directories, and to git it is a file.
        links = (name for name in directories if Path(folder, name).is_symlink())
        files += (Path(folder, name) for name in (*names, *links))
    if sum(path.lstat().st_size for path in files) > _QUICKLY_READ_BYTES:
        return False
    before = int(time.time()) - 2
    for path in files:
        os.utime(path, (before, before), follow_symlinks=False)
    return True


def _move_into_place(scratch: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    scratch.chmod(0o755)
    try:
        scratch.rename(target)
    except OSError as error:
        # Somebody else made the same tree meanwhile: it is the same.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
