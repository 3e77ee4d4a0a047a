"""Finds the submodules of a commit, and fetches those that may be had into mirrors of their own.

Whoever can push to a repository writes its `.gitmodules`, and names what this machine fetches. So every address is
judged as a repository's is. The repository's credentials, and whatever only they or this machine's files lead to, are
for the addresses that its default branch names; what an agent wrote names nothing that its remote did not.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.common.display import one_line
from services.common.errors import ServiceError
from services.git.bases.found_submodules import NO_SUBMODULES, FoundSubmodules, Submodule
from services.git.disk.walk import walk_tree
from services.git.gitcmd import GitError
from services.git.gitmodules import (
    Module,
    absolute_url,
    addresses,
    name_complaint,
    origin,
)
from services.git.model import ProgressListener, Remote
from services.git.refusals import UNREACHABLE
from services.git.remote.addresses import AddressBook
from services.git.stores.mirrors import Mirrors
from services.git.stores.module_files import ModuleFiles

_DEEPEST: Final = 8
# One that does not answer makes the jobs of a repository wait only once in a while.
_GIVEN_UP_SECONDS: Final = 300.0
_ASKING_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class SubmoduleLimits:
    """How many submodules of one base are fetched at most, nested ones too, and how many bytes all of them may take."""

    count: int = 100
    bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class _Source:
    """A commit whose `.gitmodules` is read: of the repository itself, or of a submodule at `path`.

    `allowed` are the only addresses that may be asked; None means any. `trusted` ones get the credentials. `names` are
    those that submodules have got so far.
    """

    repository: Path
    commit_id: str
    url: str
    trusted: frozenset[str]
    allowed: frozenset[str] | None = None
    path: bytes = b""
    git_dir: Path = Path()
    depth: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Search:
    """One search: who asks, what is found so far, for how many it was tried, and how many bytes its mirrors take."""

    remote: Remote
    hold: Callable[[str], object]
    report: ProgressListener
    had: list[Submodule] = field(default_factory=list)
    missing: dict[bytes, str] = field(default_factory=dict)
    tries: int = 0
    bytes: int = 0


class Submodules:
    """Finds and fetches the submodules of commits.

    Args:
        files: reads `.gitmodules`.
        mirrors: where submodules are fetched to, under ids of their own for each repository that has them.
        addresses: decides which URLs may be used.
        limits: of one base.
    """

    def __init__(self, files: ModuleFiles, mirrors: Mirrors, addresses: AddressBook, limits: SubmoduleLimits) -> None:
        self._mirrors = mirrors
        self._addresses = addresses
        self._limits = limits
        self._files = files
        self._given_up: dict[tuple[str, str], float] = {}

    def objects(self, found: FoundSubmodules) -> tuple[Path, ...]:
        """Return the object directories that their repositories borrow from."""
        return tuple(map(self._mirrors.objects, found.mirror_ids))

    def mirror_of(self, remote: Remote) -> Path:
        """Return the mirror of a repository itself."""
        return self._mirrors.path(remote.repository_id)

    def mirror_at(self, remote: Remote, url: str) -> Path:
        """Return the mirror of a repository's submodule with this absolute URL."""
        return self._mirrors.path(mirror_id(remote.repository_id, url))

    async def find(
        self,
        remote: Remote,
        commit_id: str,
        hold: Callable[[str], object],
        report: ProgressListener,
        *,
        result: tuple[Path, str] | None = None,
    ) -> FoundSubmodules:
        """Find the submodules of a commit of a remote's mirror, and fetch what the mirrors lack of them.

        Args:
            remote: the repository.
            commit_id: the commit; for a result, that of the remote which it goes back to.
            hold: protects a mirror from removal until the caller is done.
            report: is told how a fetch goes on.
            result: a store and a commit that an agent made in it, whose submodules are asked for instead.

        Raises:
            GitError: what is here cannot be read.
        """
        mirror = self.mirror_of(remote)
        repository, source_id = result or (mirror, commit_id)
        if not await self._files.modules(repository, source_id):
            return NO_SUBMODULES
        trusted = await self._named_by_default(remote.repository_id, remote.url)
        allowed = None
        if result is not None:
            allowed = trusted | addresses(await self._files.modules(mirror, commit_id), remote.url)
        search = _Search(remote, hold, report)
        waiting = [_Source(repository, source_id, remote.url, trusted, allowed)]
        while waiting:
            waiting += await self._search(search, waiting.pop(0))
        return FoundSubmodules(tuple(search.had), tuple(sorted(search.missing.items())))

    async def has(self, remote: Remote, url: str, commit_id: str, *, may_ask: bool) -> bool:
        """True when the repository of a submodule has a commit. If the mirror lacks it, the remote may be asked.

        `url` is an absolute one that the remote's own `.gitmodules` names, or empty.
        """
        if not url:
            return False
        mirror = mirror_id(remote.repository_id, url)
        if await self._is_here(mirror, commit_id):
            return True
        if not may_ask:
            return False
        trusted = await self._named_by_default(remote.repository_id, remote.url)
        if self._complaint(_Source(self.mirror_of(remote), commit_id, remote.url, trusted), url):
            return False
        asked = _as_remote(remote, mirror, url, trusted)
        with contextlib.suppress(ServiceError, GitError, TimeoutError):
            async with asyncio.timeout(_ASKING_SECONDS):
                return await self._mirrors.find(asked, commit_id.encode(), lambda _: None) is not None
        return False

    async def _search(self, search: _Search, source: _Source) -> list[_Source]:
        """Find the submodules of one commit; return those commits of them that may have submodules too."""
        inner: list[_Source] = []
        modules = await self._files.modules(source.repository, source.commit_id)
        for path, commit_id in sorted((await self._files.links(source.repository, source.commit_id)).items()):
            place = source.path + b"/" + path if source.path else path
            module = modules[path]
            try:
                submodule, trusts = await self._get(search, source, module, place, commit_id)
            except _NotHadError as why:
                search.missing[place] = str(why)
                continue
            source.names.append(module.name)
            search.had.append(submodule)
            mirror = self._mirrors.path(submodule.mirror_id)
            named = await self._named_by_default(submodule.mirror_id, submodule.url) if trusts else frozenset()
            inner.append(
                _Source(
                    mirror,
                    commit_id,
                    submodule.url,
                    named,
                    path=place,
                    git_dir=submodule.git_dir,
                    depth=source.depth + 1,
                )
            )
        return inner

    async def _get(
        self, search: _Search, source: _Source, module: Module, place: bytes, commit_id: str
    ) -> tuple[Submodule, bool]:
        """Get one submodule into its mirror; return it, and whether its address is trusted. Raises _NotHadError."""
        if search.tries >= self._limits.count:
            raise _NotHadError(f"more than {self._limits.count} are not fetched (BOATYARD_GIT_MAX_SUBMODULES)")
        if source.depth >= _DEEPEST:
            raise _NotHadError(f"it is nested deeper than {_DEEPEST} levels")
        if complaint := name_complaint(module.name, source.names):
            raise _NotHadError(complaint)
        url = absolute_url(module.url, source.url)
        if url is None:
            raise _NotHadError("its URL in .gitmodules leads nowhere")
        if complaint := self._complaint(source, url):
            raise _NotHadError(complaint)
        submodule = Submodule(
            place,
            module.name,
            source.git_dir / "modules" / module.name,
            url,
            commit_id,
            _as_remote(search.remote, mirror_id(search.remote.repository_id, url), url, source.trusted),
            source.git_dir,
        )
        search.tries += 1
        await self._fetch(search, submodule)
        return submodule, url in source.trusted

    def _complaint(self, source: _Source, url: str) -> str | None:
        """Return why an address may not be asked, None when it may."""
        if complaint := self._addresses.complaint(url):
            return f"its URL {complaint}"
        if source.allowed is not None and url not in source.allowed:
            return "its URL is its agent's, and not in the .gitmodules of the remote"
        protocol = self._addresses.address(url).protocol
        if protocol == "file" and self._addresses.address(source.url).protocol != "file":
            return "its URL leads to this machine, from a repository elsewhere"
        # Only a key, or the rights of the account that runs us, lead there.
        if protocol in {"file", "ssh"} and url not in source.trusted:
            return f"its URL is not in the .gitmodules of the default branch, as one of protocol {protocol} must be"
        return None

    async def _fetch(self, search: _Search, submodule: Submodule) -> None:
        self._check_room(search)  # else each further one would be fetched to be refused
        search.hold(submodule.mirror_id)
        if not await self._is_here(submodule.mirror_id, submodule.commit_id):
            await self._ask(search, submodule)
        mirror = self._mirrors.path(submodule.mirror_id)
        os.utime(mirror)
        if all(each.mirror_id != submodule.mirror_id for each in search.had):
            search.bytes += (await asyncio.to_thread(walk_tree, mirror)).bytes
        self._check_room(search)

    def _check_room(self, search: _Search) -> None:
        if search.bytes > self._limits.bytes:
            limit = f"{self._limits.bytes >> 20} MiB"
            raise _NotHadError(f"all together have more than {limit} (BOATYARD_GIT_SUBMODULES_MAX_BYTES)")

    async def _ask(self, search: _Search, submodule: Submodule) -> None:
        """Fetch a commit that the mirror lacks. What one repository has met with is not held against another's."""
        server = origin(submodule.url)
        asking = (search.remote.repository_id, server)
        if time.monotonic() < self._given_up.get(asking, 0.0):
            raise _NotHadError(f"{UNREACHABLE}: {server} has not answered in the last minutes")
        try:
            found = await self._mirrors.find(submodule.remote, submodule.commit_id.encode(), search.report)
        except ServiceError as error:
            if error.reason == UNREACHABLE and server:
                self._give_up(asking)
            raise _NotHadError(f"{error.reason}: {one_line(str(error))}") from error
        except GitError as error:  # its server has no address
            raise _NotHadError(one_line(str(error))) from error
        if found is None:
            raise _NotHadError(f"its repository has no commit {submodule.commit_id}")

    def _give_up(self, asking: tuple[str, str]) -> None:
        now = time.monotonic()
        left = {other: until for other, until in self._given_up.items() if until > now}
        self._given_up = left | {asking: now + _GIVEN_UP_SECONDS}

    async def _is_here(self, mirror: str, commit_id: str) -> bool:
        return self._mirrors.exists(mirror) and await self._mirrors.revisions.has(mirror, commit_id)

    async def _named_by_default(self, repository_id: str, url: str) -> frozenset[str]:
        """Return the addresses that the default branch of a mirror names."""
        default = await self._mirrors.revisions.resolve(repository_id, b"")
        if default is None:
            return frozenset()
        return addresses(await self._files.modules(self._mirrors.path(repository_id), default.commit_id), url)


class _NotHadError(Exception):
    """A submodule cannot be had; the message says why."""


def _as_remote(remote: Remote, mirror: str, url: str, trusted: frozenset[str]) -> Remote:
    """Return a submodule's repository; on the server of its own one, with the CA of that, and its token if trusted."""
    if origin(url) != origin(remote.url):
        return Remote(mirror, url)
    return Remote(mirror, url, remote.token if url in trusted else "", remote.ca)


def mirror_id(repository_id: str, url: str) -> str:
    """Return the id of a submodule's mirror: each repository has its own, as its credentials may be needed for it.

    No repository has such an id: ids have no underscore.
    """
    return f"submodule_{hashlib.sha256(f'{repository_id} {url}'.encode()).hexdigest()[:32]}"
