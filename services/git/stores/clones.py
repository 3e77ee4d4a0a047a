"""Plain clones, in a directory of the service's own."""

import asyncio
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from services.git import failures
from services.git.disk.walk import walk_tree
from services.git.gitcmd import Command, Git, GitError, GitFailed
from services.git.model import Clone, CloneSpec, CloneUsage, ProgressListener
from services.git.paths import GitPaths, remove_tree
from services.git.progress import ProgressParser
from services.git.remote.addresses import AddressBook
from services.git.remote.http_answers import run_connected
from services.git.single_flight import SingleFlight
from services.git.stores.repository import StoreLimits, commit_of


class Clones:
    """Makes clones, each once: built aside, and renamed into place when whole."""

    def __init__(self, git: Git, paths: GitPaths, addresses: AddressBook, limits: StoreLimits) -> None:
        self._git = git
        self._paths = paths
        self._addresses = addresses
        self._limits = limits
        self._single_flight = SingleFlight[Clone]()

    async def clone(self, spec: CloneSpec, report: ProgressListener) -> Clone:
        """Return the clone; an existing one is returned as it is.

        Raises:
            NotFound: REVISION_NOT_FOUND, the remote has no such branch, or has no commits.
            FailedPrecondition: CLONE_FAILED.
            Exhausted: DISK_FULL.
        """
        return await self._single_flight.join(spec.clone_id, lambda shared: self._clone(spec, shared), report)

    def usages(self) -> list[CloneUsage]:
        """Measure all clones, ordered by id. Blocks, in proportion to their files."""
        places = sorted(self._paths.clones.iterdir(), key=lambda place: place.name)
        return [CloneUsage(place.name, place, walk_tree(place).bytes) for place in places]

    async def delete(self, clone_id: str) -> None:
        """Remove a clone; a missing one is a success. What a crash leaves, the next start removes."""
        scratch = self._paths.scratch()
        with suppress(FileNotFoundError):
            (self._paths.clones / clone_id).rename(scratch / "clone")
        await asyncio.to_thread(remove_tree, scratch)

    async def _clone(self, spec: CloneSpec, report: ProgressListener) -> Clone:
        target = self._paths.clones / spec.clone_id
        if not target.is_dir():
            self._paths.check_room(self._limits.min_free_bytes)
            scratch = self._paths.scratch()
            try:
                await self._fill(spec, scratch / "clone", report)
                (scratch / "clone").rename(target)
            except GitError as error:
                if isinstance(error, GitFailed) and "Remote branch" in error.stderr:
                    raise failures.revision_not_found(spec.branch) from error
                raise failures.clone_failed(
                    spec.remote.repository_id, error, self._limits.network.fetch_bytes
                ) from error
            finally:
                await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        commit_id = await commit_of(self._git, target / ".git", b"HEAD")
        if commit_id is None:
            raise failures.revision_not_found(spec.branch or "HEAD")
        return Clone(target, commit_id)

    async def _fill(self, spec: CloneSpec, path: Path, report: ProgressListener) -> None:
        address = await self._addresses.resolve(spec.remote.url)
        flags: list[str | bytes] = ["--progress", "--template=", "--no-recurse-submodules"]
        if spec.branch:
            flags.append(b"--branch=" + spec.branch)
        if spec.depth:
            flags.append(f"--depth={spec.depth}")
        invocation = replace(
            self._limits.network.fetching(address.invocation(spec.remote), path.parent),
            cwd=path.parent,
            on_message=ProgressParser(report),
        )
        async with address.reading(invocation) as source:
            clone = Command("clone", (*flags, *source.flags), (source.url, str(path)))
            await run_connected(self._git, clone, source)
