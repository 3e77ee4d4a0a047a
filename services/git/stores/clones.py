"""Plain clones in a directory of this service's own."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

from services.git import failures
from services.git.gitcmd import Command, Git, GitError, GitFailed
from services.git.model import Clone, CloneOrder, Listener
from services.git.paths import Places
from services.git.progress import ProgressParser
from services.git.remote.addresses import AddressBook
from services.git.single_flight import Flights
from services.git.stores.repository import Bounds, commit_of


class Clones:
    """Makes clones, each once: built aside, renamed when whole."""

    def __init__(self, git: Git, places: Places, addresses: AddressBook, bounds: Bounds) -> None:
        self._git = git
        self._places = places
        self._addresses = addresses
        self._bounds = bounds
        self._flights = Flights[Clone]()

    async def clone(self, order: CloneOrder, report: Listener) -> Clone:
        """Return the clone of this order; one that is there is not looked at again.

        Raises:
            NotFound: REVISION_NOT_FOUND, the remote has no such branch, or no commit.
            FailedPrecondition: CLONE_FAILED.
            Exhausted: DISK_FULL.
        """
        return await self._flights.join(order.clone_id, lambda shared: self._clone(order, shared), report)

    async def _clone(self, order: CloneOrder, report: Listener) -> Clone:
        target = self._places.clones / order.clone_id
        if not target.is_dir():
            self._places.check_room(self._bounds.min_free_bytes)
            scratch = self._places.scratch()
            try:
                await self._fill(order, scratch / "clone", report)
                (scratch / "clone").rename(target)
            except GitError as error:
                if isinstance(error, GitFailed) and "Remote branch" in error.stderr:
                    raise failures.revision_not_found(order.branch) from error
                raise failures.clone_failed(order.remote.repository_id, error) from error
            finally:
                await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        commit_id = await commit_of(self._git, target / ".git", b"HEAD")
        if commit_id is None:
            raise failures.revision_not_found(order.branch or "HEAD")
        return Clone(target, commit_id)

    async def _fill(self, order: CloneOrder, path: Path, report: Listener) -> None:
        address = await self._addresses.reach(order.remote.url)
        flags: list[str | bytes] = ["--progress", "--template=", "--no-recurse-submodules", *address.reading_flags]
        if order.branch:
            flags.append(b"--branch=" + order.branch)
        if order.depth:
            flags.append(f"--depth={order.depth}")
        # A path is cloned by linking its files, whatever the depth; its URL is not.
        url = f"file://{address.url}" if address.protocol == "file" else address.url
        how = replace(
            address.invocation(order.remote.token, self._bounds.fetch_seconds),
            cwd=path.parent,
            on_message=ProgressParser(report),
        )
        await self._git.run(Command("clone", tuple(flags), (url, str(path))), how)
