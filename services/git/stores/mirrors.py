"""Mirrors: one bare repository for each remote, with upstream's objects only."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from services.common.lock import LockHeldError
from services.git import failures
from services.git.disk.budget import DiskBudget
from services.git.disk.walk import walk_tree
from services.git.empty import EMPTY_COMMIT_ID, write_empty_commit
from services.git.gitcmd import Command, Git, GitError, GitFailed, Invocation
from services.git.model import ProgressListener, Remote
from services.git.names import SINGLE_COMMITS, is_commit_id
from services.git.paths import GitPaths
from services.git.progress import ProgressParser
from services.git.refusals import is_not_offered
from services.git.remote.addresses import Address, AddressBook
from services.git.remote.http_answers import run_connected
from services.git.remote.listing import RemoteListing, list_remote
from services.git.single_flight import SingleFlight
from services.git.stores.repository import StoreLimits, locked, remove_stale_locks
from services.git.stores.revisions import (
    DEFAULT,
    HEAD_REF,
    NAMED,
    ResolvedRevision,
    Revisions,
    is_of_no_kind,
    refs_named,
)

_EMPTY_REF: Final = f"{SINGLE_COMMITS}{EMPTY_COMMIT_ID}"
_TRIES: Final = 3
_CONFIG: Final = {
    # Base trees borrow these objects, so none may ever be deleted; with this, git refuses to.
    "core.repositoryformatversion": "1",
    "extensions.preciousObjects": "true",
}


class Mirrors:
    """Fetches and reads mirrors. At most one fetch runs for each repository, in this process and in any other."""

    def __init__(
        self,
        git: Git,
        paths: GitPaths,
        addresses: AddressBook,
        budget: DiskBudget,
        limits: StoreLimits,
        *,
        on_fetched: Callable[[float], object],
    ) -> None:
        """`on_fetched` is called after each successful fetch, with its duration in seconds."""
        self.revisions = Revisions(git, paths)
        self._git = git
        self._paths = paths
        self._addresses = addresses
        self._budget = budget
        self._limits = limits
        self._on_fetched = on_fetched
        self._single_flight = SingleFlight[None]()
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._rounds = Counter[str]()
        self._asked = defaultdict[Hashable, set[bytes]](set)

    def path(self, repository_id: str) -> Path:
        """The mirror itself, a bare repository."""
        return self._paths.mirror(repository_id)

    def objects(self, repository_id: str) -> Path:
        """The object directory that trees made from the mirror borrow from."""
        return self._paths.mirror(repository_id) / "objects"

    def exists(self, repository_id: str) -> bool:
        """True when the repository has been fetched at least once."""
        return self._paths.mirror(repository_id).is_dir()

    async def refresh(self, remote: Remote, revision: bytes = b"", listener: ProgressListener = lambda _: None) -> None:
        """Bring the mirror up to date with the remote as it is now or later.

        It gets all branches and tags, or if those are too many, HEAD's branch and what `revision` names. Callers share
        a fetch that still waits for its turn. A fetch that has begun may have read the remote's refs too early: callers
        who come then share the next one.

        Raises:
            FailedPrecondition: CLONE_FAILED, REMOTE_TOO_LARGE.
            Exhausted: DISK_FULL, or REPOSITORY_BUSY when another process keeps the mirror locked.
        """
        key = (remote.repository_id, remote.url, remote.token, remote.ca, self._rounds[remote.repository_id])
        self._asked[key] |= set(refs_named(revision))
        await self._single_flight.join(key, lambda report: self._refresh(remote, key, report), listener)

    async def make_empty(self, repository_id: str) -> None:
        """Make a mirror of no remote, with the one commit EMPTY_COMMIT_ID, unless it exists.

        Raises:
            FailedPrecondition: CLONE_FAILED.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
        """
        mirror = self._paths.mirror(repository_id)
        if mirror.is_dir():
            return
        try:
            async with self._budget.reserve(0), self.writing(repository_id):
                if not mirror.is_dir():
                    await self._build_empty(mirror)
        except GitError as error:
            raise failures.clone_failed(repository_id, error) from error

    async def _build_empty(self, mirror: Path) -> None:
        async with self._building() as building:
            await self._add_empty(building)
            building.rename(mirror)

    async def _add_empty(self, mirror: Path) -> None:
        await asyncio.to_thread(write_empty_commit, mirror / "objects")
        await self._git.run(Command("update-ref", (), (_EMPTY_REF, EMPTY_COMMIT_ID)), Invocation(git_dir=mirror))

    async def find(self, remote: Remote, revision: bytes, listener: ProgressListener) -> ResolvedRevision | None:
        """Find a revision of the remote; None when there is none. A commit id already in the mirror needs no fetch.

        The default of a remote without a commit is EMPTY_COMMIT_ID. Raises the errors of `refresh`.
        """
        text = revision.decode("ascii", "replace")
        if is_commit_id(text) and await self._has_after_all(remote.repository_id, text):
            return await self.revisions.resolve(remote.repository_id, revision)
        await self.refresh(remote, revision, listener)
        resolved = await self.revisions.resolve(remote.repository_id, revision)
        if resolved is None and is_commit_id(text) and await self._fetch_commit(remote, text):
            return await self.revisions.resolve(remote.repository_id, revision)
        if is_of_no_kind(revision):
            found = await self._fetch_one(remote, revision, NAMED + revision)
            return await self.revisions.resolve(remote.repository_id, revision) if found else None
        if resolved is None and revision in DEFAULT and await self.revisions.is_empty(remote.repository_id):
            return ResolvedRevision(EMPTY_COMMIT_ID, b"")
        return resolved

    async def _has_after_all(self, repository_id: str, commit_id: str) -> bool:
        """True when the mirror holds the commit, now or after the fetch that is under way."""
        if self.exists(repository_id) and await self.revisions.has(repository_id, commit_id):
            return True
        async with self._turn(repository_id):
            return self.exists(repository_id) and await self.revisions.has(repository_id, commit_id)

    def _turn(self, repository_id: str) -> asyncio.Lock:
        """Return this process's queue for the mirror's lock file: a fair lock, waited for without a timeout."""
        return self._turns.setdefault(repository_id, asyncio.Lock())

    @contextlib.asynccontextmanager
    async def writing(self, repository_id: str) -> AsyncIterator[int]:
        """Be the only writer to the mirror. Yields the lock's descriptor, for git to hold.

        Raises:
            Exhausted: REPOSITORY_BUSY, another process keeps the mirror locked.
        """
        try:
            async with self._turn(repository_id):
                # From here on, a caller of `refresh` must not share this fetch, but the next one.
                self._rounds[repository_id] += 1
                async with locked(self._paths.mirror_lock(repository_id), self._limits.lock_seconds) as lock_fd:
                    yield lock_fd
        except LockHeldError as error:
            raise failures.repository_busy(repository_id) from error

    async def _refresh(self, remote: Remote, key: Hashable, report: ProgressListener) -> None:
        try:
            async with self._budget.reserve(0), self.writing(remote.repository_id) as lock_fd:
                began = time.monotonic()
                # Nobody shares this fetch any more, so nobody asks it for anything else.
                await self._fetch_locked(remote, self._asked.pop(key), lock_fd, report)
                self._on_fetched(time.monotonic() - began)
        except GitError as error:
            raise failures.clone_failed(remote.repository_id, error, self._limits.network.fetch_bytes) from error
        finally:
            self._asked.pop(key, None)

    async def _fetch_locked(self, remote: Remote, asked: set[bytes], lock_fd: int, report: ProgressListener) -> None:
        mirror = self._paths.mirror(remote.repository_id)
        if mirror.is_dir():
            with _without_leftovers(mirror):
                await self._fetch(mirror, remote, asked, lock_fd, report)
            return
        async with self._building() as building:
            await self._fetch(building, remote, asked, lock_fd, report)
            async with self._budget.reserve((await asyncio.to_thread(walk_tree, building)).bytes):
                building.rename(mirror)

    @contextlib.asynccontextmanager
    async def _building(self) -> AsyncIterator[Path]:
        """Make a mirror aside, to be filled and renamed into place. Yields its path."""
        scratch = self._paths.scratch()
        try:
            building = scratch / "mirror.git"
            await self._git.run(Command("init", ("--quiet", "--bare", "--template="), (str(building),)))
            for key, value in _CONFIG.items():
                await self._git.run(Command("config", (f"--file={building / 'config'}",), (key, value)))
            yield building
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _fetch(
        self, mirror: Path, remote: Remote, asked: set[bytes], lock_fd: int, report: ProgressListener
    ) -> None:
        address = await self._addresses.resolve(remote.url)
        invocation = replace(address.invocation(remote), git_dir=mirror, inherited_fds=(lock_fd,))
        for left in reversed(range(_TRIES)):
            listing = await list_remote(self._git, address, self._limits.network.listing(invocation))
            refs = listing.wanted(asked, self._limits.max_refs)
            await self._prune(mirror, listing, refs)
            if not (listing.refs or listing.has_head):
                await self._add_empty(mirror)
            refspecs = [b"+%b:%b\n" % (ref, ref) for ref in refs] + [b"+HEAD:%b\n" % HEAD_REF] * listing.has_head
            try:
                await self._fetch_refs(address, invocation, refspecs, report)
                break
            except GitFailed as error:
                if not left or "couldn't find remote ref" not in error.stderr:  # it was removed since it was listed
                    raise
        if listing.head:
            await self._git.run(Command("symbolic-ref", (), ("HEAD", listing.head)), Invocation(git_dir=mirror))

    async def _fetch_refs(
        self, address: Address, invocation: Invocation, refspecs: list[bytes], report: ProgressListener
    ) -> None:
        """Fetch refs by their names: the second time that it is asked, a remote may offer more."""
        if not refspecs:
            return
        flags = ("--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--stdin")
        limited = self._limits.network.fetching(invocation, self._paths.root)
        with self._file_of(refspecs) as file:
            reporting = replace(limited, stdin_file=file, on_message=ProgressParser(report))
            async with address.reading(reporting) as source:
                fetch = Command("fetch", (*flags, *source.flags), (source.url,))
                fetched = await run_connected(self._git, fetch, source)
        # Git skips such branches, and still reports success.
        if "shallow roots are not allowed" in fetched.stderr:
            raise GitFailed("fetch", fetched.code, "the remote is a shallow clone itself: its history is incomplete")

    async def _prune(self, mirror: Path, listing: RemoteListing, wanted: list[bytes]) -> None:
        """Remove refs that the remote no longer has, because a new one may need their place, and all if too many."""
        command = Command("for-each-ref", ("--format=%(refname)",), (HEAD_REF, "refs/heads/", "refs/tags/"))
        known = set((await self._git.run(command, Invocation(git_dir=mirror))).stdout.splitlines())
        left = known & (listing.refs | {HEAD_REF} if listing.has_head else listing.refs)
        gone = known - (left if len(left) <= self._limits.max_refs else left & {HEAD_REF, *wanted})
        if gone:
            with self._file_of([b"delete %b\n" % ref for ref in sorted(gone)]) as file:
                delete = Command("update-ref", ("--no-deref", "--stdin"))
                await self._git.run(delete, Invocation(git_dir=mirror, stdin_file=file))

    @contextlib.contextmanager
    def _file_of(self, lines: list[bytes]) -> Iterator[Path]:
        """Write lines for git to read: they may be more than fit among its arguments."""
        with tempfile.NamedTemporaryFile(dir=self._paths.scratch_root) as file:
            file.write(b"".join(lines))
            file.flush()
            yield Path(file.name)

    async def _fetch_commit(self, remote: Remote, commit_id: str) -> bool:
        """Fetch a commit that no branch or tag leads to; return whether the mirror has it now. Many servers refuse."""
        await self._fetch_one(remote, commit_id.encode(), f"{SINGLE_COMMITS}{commit_id}".encode())
        return await self.revisions.has(remote.repository_id, commit_id)

    async def _fetch_one(self, remote: Remote, source: bytes, target: bytes) -> bool:
        """Fetch a commit or a ref by its name, and keep it as `target`; return False when the remote has none.

        Raises the errors of `refresh`: what was fetched before is no answer of a remote that is away.
        """
        address = await self._addresses.resolve(remote.url)
        mirror = self._paths.mirror(remote.repository_id)
        flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
        refspec = b"+%b:%b" % (source, target)
        try:
            async with self.writing(remote.repository_id) as lock_fd:
                invocation = replace(address.invocation(remote), git_dir=mirror, inherited_fds=(lock_fd,))
                limited = self._limits.network.fetching(invocation, self._paths.root)
                async with address.reading(limited) as connection:
                    fetch = Command("fetch", (*flags, *connection.flags), (connection.url, refspec))
                    with _without_leftovers(mirror):
                        await run_connected(self._git, fetch, connection)
        except GitError as error:
            if is_not_offered(error):
                return False
            raise failures.clone_failed(remote.repository_id, error, self._limits.network.fetch_bytes) from error
        return True


@contextlib.contextmanager
def _without_leftovers(mirror: Path) -> Iterator[None]:
    """Remove what a git that was killed left before, and what stays of a fetch that fails or is cut off at a limit."""
    remove_stale_locks(mirror)
    try:
        yield
    except GitError:
        remove_stale_locks(mirror)
        raise
