"""Gets objects of Git LFS into the stores of repositories, and brings there what results have made."""

import asyncio
import shutil
import time
from collections.abc import Collection
from functools import partial
from typing import Final

from services.git import failures
from services.git.gitcmd import Command, Git, GitError, Invocation, OutputTooLarge
from services.git.model import Remote
from services.git.paths import GitPaths
from services.git.pointers import Pointer
from services.git.refusals import UNREACHABLE
from services.git.remote.addresses import AddressBook
from services.git.remote.lfs import LfsRemotes, MakeRoom, Sink
from services.git.remote.lfs_batch import Endpoint
from services.git.remote.lfs_directory import LfsDirectory
from services.git.remote.lfs_http import LfsError
from services.git.remote.lfs_ssh import ask_over_ssh
from services.git.stores.lfs_objects import LfsObjects
from services.git.stores.mirrors import Mirrors

_CONFIG: Final = ".lfsconfig"
_CONFIG_BYTES: Final = 64 << 10
_OVER_HTTPS: Final = ("https://", "http://")
# A server that does not answer makes the jobs of a repository wait only once in a while.
_GIVEN_UP_SECONDS: Final = 300.0


class LfsTransfer:
    """Moves objects between the stores of repositories and their servers of Git LFS."""

    def __init__(
        self, git: Git, paths: GitPaths, mirrors: Mirrors, addresses: AddressBook, remotes: LfsRemotes
    ) -> None:
        self._git = git
        self._paths = paths
        self._mirrors = mirrors
        self._objects = LfsObjects(paths)
        self._addresses = addresses
        self._remotes = remotes
        self._given_up: dict[str, float] = {}

    async def fetch(self, remote: Remote, wanted: Collection[Pointer], make_room: MakeRoom) -> dict[Pointer, str]:
        """Get objects into the store of a repository that has a mirror; return why those are missing that are.

        `make_room` is told of bytes that came, before they are written; what it raises ends all.
        """
        if time.monotonic() < self._given_up.get(remote.repository_id, 0.0):
            return dict.fromkeys(wanted, f"{UNREACHABLE}: the server of Git LFS has not answered in the last minutes")
        scratch = self._paths.scratch()
        sink = Sink(scratch, make_room, partial(self._objects.keep_fetched, remote.repository_id))
        try:
            place = await self._place(remote, "download")
            if isinstance(place, LfsDirectory):
                missing = await place.fetch(wanted, sink)
            else:
                missing = await self._remotes.fetch(remote, place, wanted, sink)
        except LfsError as error:
            missing = dict.fromkeys(wanted, error)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        if any(error.may_pass for error in missing.values()):
            self._give_up(remote.repository_id)
        return {pointer: _words(error) for pointer, error in missing.items()}

    async def bring(self, remote: Remote, commit_id: str, branch: bytes) -> None:
        """Bring the server what a result has made, before it is pushed. Raises as Publisher.push does."""
        made = await asyncio.to_thread(self._objects.made, remote.repository_id, commit_id)
        if not made:
            return
        try:
            place = await self._place(remote, "upload")
            if isinstance(place, LfsDirectory):
                await place.upload(made)
            else:
                await self._remotes.upload(remote, place, made)
        except GitError as error:
            raise failures.push_failed(branch, GitError("lfs", f"Git LFS: {error}")) from error

    async def is_used(self, remote: Remote) -> bool:
        """True when there is where to bring what results make, or something was fetched.

        A server over ssh says that only to whoever has its key.
        """
        if self._paths.fetched_lfs(remote.repository_id).is_dir():
            return True
        try:
            place = await self._known_place(remote)
        except LfsError:
            return False
        return await place.exists() if isinstance(place, LfsDirectory) else place is not None

    async def _place(self, remote: Remote, operation: str) -> Endpoint | LfsDirectory:
        """Return where the objects of a repository are. Raises LfsError: nowhere that can be asked."""
        known = await self._known_place(remote)
        return known or await ask_over_ssh(self._git, self._addresses, remote, operation)

    async def _known_place(self, remote: Remote) -> Endpoint | LfsDirectory | None:
        """Return where the default branch says, or what the URL says; None when its server has to be asked over ssh.

        Raises LfsError: the default branch names no server that can be asked.
        """
        if configured := await self._configured(remote.repository_id):
            if not configured.startswith(_OVER_HTTPS):
                raise LfsError(f"the lfs.url in its {_CONFIG} must be https")
            if complaint := self._addresses.complaint(configured):
                raise LfsError(f"the lfs.url in its {_CONFIG} {complaint}")
            return Endpoint(configured.rstrip("/"))
        if remote.url.startswith(_OVER_HTTPS):
            return Endpoint(f"{remote.url.rstrip('/').removesuffix('.git')}.git/info/lfs")
        if not remote.url:
            raise LfsError("its URL is not known")
        far_side = self._addresses.address(remote.url).far_side
        return LfsDirectory(far_side) if far_side is not None else None

    async def _configured(self, repository_id: str) -> str:
        """Return the `lfs.url` of the default branch; empty when it has none. Another branch is anybody's."""
        default = await self._mirrors.revisions.resolve(repository_id, b"")
        if default is None:
            return ""
        listing = Command("config", ("--list", "-z", f"--blob={default.commit_id}:{_CONFIG}"))
        mirror = self._mirrors.path(repository_id)
        inside = Invocation(git_dir=mirror, expected_codes=(0, 1, 3, 128), output_limit=_CONFIG_BYTES)
        try:
            answer = await self._git.run(listing, inside)
        except OutputTooLarge:
            return ""
        found = ""
        for record in answer.stdout.split(b"\0") if not answer.code else ():
            key, _, value = record.partition(b"\n")
            if key == b"lfs.url":
                found = value.decode("utf-8", "replace")
        return found

    def _give_up(self, repository_id: str) -> None:
        now = time.monotonic()
        left = {other: until for other, until in self._given_up.items() if until > now}
        self._given_up = left | {repository_id: now + _GIVEN_UP_SECONDS}


def _words(error: LfsError) -> str:
    """Return why an object is missing; what may be there later begins with the reason, as for submodules."""
    return f"{UNREACHABLE}: {error}" if error.may_pass else str(error)
