"""Keeps the service's disk use within a budget, by evicting what was used least recently.

Mirrors, bases and result stores are counted. Bases that nobody uses and mirrors that nothing needs any more are
evicted, but never one that is pinned, lies below another base, was handed out within the grace period, or is being
built from. Plain clones belong to whoever asked for them: `stores.clones` counts them, and nothing evicts them.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from services.common.errors import Exhausted
from services.common.lock import FileLock, LockHeldError
from services.git import failures
from services.git.disk.base_cache import BaseCache, CachedBase
from services.git.disk.walk import walk_tree
from services.git.paths import GitPaths

# A checkout is 2 to 6 times as large as its pack (measured on five repositories).
_CHECKOUT_TO_PACK: Final = 4
# A result's base serves a check that runs once.
_RESULT_KEPT_SECONDS: Final = 3600
_EVICTION_INTERVAL_SECONDS: Final = 600.0
_STEP_BYTES: Final = 64 << 20

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """How much the service may keep (0: no limit), how much must stay free, how long a base handed out is protected."""

    budget_bytes: int = 0
    min_free_bytes: int = 0
    grace_seconds: float = 3600


@dataclass(frozen=True, slots=True)
class RepositoryUsage:
    """What one repository takes. `last_use` is that of its mirror, with which go the objects of Git LFS."""

    repository_id: str
    mirror_bytes: int
    results_bytes: int
    has_results: bool
    last_use: float
    bases: list[CachedBase] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Everything together."""
        return self.mirror_bytes + self.results_bytes + sum(base.bytes for base in self.bases)


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What everything takes, ordered by repository id, and what was removed since the service started.

    `results` has the number of results of each repository that has any.
    """

    repositories: list[RepositoryUsage]
    budget_bytes: int
    evicted_bases: int
    evicted_mirrors: int
    results: Mapping[str, int] = field(default_factory=dict)
    expired_results: int = 0


class Reservation:
    """Disk space reserved for something that is being built."""

    def __init__(self, budget: "DiskBudget") -> None:
        self._budget = budget
        self.bytes = 0

    async def resize(self, size: int) -> None:
        """Reserve this much instead, now that the size is known better. Raises Exhausted (DISK_FULL)."""
        self.bytes = await self._budget.make_room(size, instead_of=self.bytes)


class Allowance:
    """Room for something that says it has `most` bytes, and may have none: it is reserved while they come."""

    def __init__(self, reserved: Reservation, most: int) -> None:
        self._reserved = reserved
        self._most = most
        self._used = 0
        self._turn = asyncio.Lock()

    async def use(self, size: int) -> None:
        """Use up so many bytes more. Raises Exhausted (DISK_FULL): there is no room for them."""
        self._used += size
        async with self._turn:
            if self._used > self._reserved.bytes:
                ahead = min(self._used, _STEP_BYTES)
                await self._reserved.resize(max(self._used, min(self._most, self._used + ahead)))


class DiskBudget:
    """Counts, refuses and evicts. One instance for each service; no other process removes what it manages."""

    def __init__(self, paths: GitPaths, cache: BaseCache, limits: DiskLimits) -> None:
        self._paths = paths
        self._cache = cache
        self._limits = limits
        self._reserved = 0
        self._deciding = asyncio.Lock()
        self.evicted_bases = 0
        self.evicted_mirrors = 0

    async def usage(self) -> DiskUsage:
        """Count everything."""
        async with self._deciding:
            repositories = await asyncio.to_thread(self.survey)
        return DiskUsage(repositories, self._limits.budget_bytes, self.evicted_bases, self.evicted_mirrors)

    @contextlib.asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[Reservation]:
        """Reserve `size` bytes until the block ends; evict when there is too little room.

        Raises:
            Exhausted: DISK_FULL, there is too little room, and everything kept is in use.
        """
        reservation = Reservation(self)
        try:
            await reservation.resize(size)
            yield reservation
        finally:
            self._reserved -= reservation.bytes

    def expected_tree(self, repository_id: str) -> int:
        """Estimate the size of a whole tree: that of the repository's largest base, or by its mirror's size. Blocks."""
        known = [base.whole.bytes for base in self._cache.of(repository_id)]
        return max(known) if known else _CHECKOUT_TO_PACK * walk_tree(self._paths.mirror(repository_id)).bytes

    async def make_room(self, size: int, *, instead_of: int = 0) -> int:
        """Evict until `size` bytes fit in place of `instead_of`, and reserve them. Returns `size`. Raises Exhausted."""
        async with self._deciding:
            usages = await asyncio.to_thread(self.survey)
            while (short := self._short_of(usages, size - instead_of)) > 0:
                if not await self._evict_one(usages):
                    raise failures.disk_full(self._refusal(usages, size, short))
            self._reserved += size - instead_of
        return size

    async def check(self) -> None:
        """Raise Exhausted (DISK_FULL) when too little of the disk is free, and what could be evicted does not help."""
        if shutil.disk_usage(self._paths.root).free < self._limits.min_free_bytes + self._reserved:
            await self.make_room(0)

    def survey(self) -> list[RepositoryUsage]:
        """Count everything, repository by repository, ordered by id. Blocks."""
        bases: dict[str, list[CachedBase]] = {}
        for base in self._cache.all():
            bases.setdefault(base.repository_id, []).append(base)
        ids = {path.name.removesuffix(".git") for path in self._paths.mirrors.glob("*.git")} | bases.keys()
        return [self._usage(repository_id, bases.get(repository_id, [])) for repository_id in sorted(ids)]

    async def run_eviction(self) -> None:
        """Evict every ten minutes, until cancelled."""
        while True:
            try:
                await self.evict()
            except Exception:  # noqa: BLE001 - whatever it is, the next round may succeed
                _log.exception("could not evict")
            await asyncio.sleep(_EVICTION_INTERVAL_SECONDS)

    async def evict(self) -> None:
        """Remove old bases of results, and evict until everything fits the budget."""
        async with self._deciding:
            for base in await asyncio.to_thread(self._cache.all):
                old = time.time() - base.last_use > _RESULT_KEPT_SECONDS
                if old and base.path.is_relative_to(self._paths.result_bases):
                    await self._evict_base(base)
        with contextlib.suppress(Exhausted):  # whoever asks for more gets this error
            await self.make_room(0)

    def _usage(self, repository_id: str, bases: list[CachedBase]) -> RepositoryUsage:
        mirror, store = self._paths.mirror(repository_id), self._paths.result_store(repository_id)
        fetched = self._paths.fetched_lfs(repository_id)
        return RepositoryUsage(
            repository_id,
            mirror_bytes=walk_tree(mirror).bytes + walk_tree(fetched).bytes if mirror.is_dir() else 0,
            results_bytes=walk_tree(store).bytes if store.is_dir() else 0,
            has_results=_has_refs(store),
            last_use=mirror.stat().st_mtime if mirror.is_dir() else 0,
            bases=bases,
        )

    def _short_of(self, usages: list[RepositoryUsage], more: int) -> int:
        """Return how many bytes are missing to add `more`; not positive when it fits."""
        free = shutil.disk_usage(self._paths.root).free
        short = self._limits.min_free_bytes + self._reserved + more - free
        if self._limits.budget_bytes:
            used = sum(usage.bytes for usage in usages)
            short = max(short, used + self._reserved + more - self._limits.budget_bytes)
        return short

    async def _evict_one(self, usages: list[RepositoryUsage]) -> bool:
        """Remove what was used least recently, from the disk and from `usages`; False when nothing may go."""
        for _, usage, base in sorted(self._evictable(usages), key=lambda candidate: candidate[0]):
            if base is not None and await self._evict_base(base):
                usage.bases.remove(base)
                return True
            if base is None and await self._evict_mirror(usage):
                usages.remove(usage)
                return True
        return False

    def _evictable(self, usages: list[RepositoryUsage]) -> Iterator[tuple[float, RepositoryUsage, CachedBase | None]]:
        latest = time.time() - self._limits.grace_seconds
        for usage in usages:
            below = {base.below.path for base in usage.bases if base.below}
            for base in usage.bases:
                if base.path not in below and base.last_use <= latest and not base.pins:
                    yield base.last_use, usage, base
            if usage.mirror_bytes and not usage.bases and not usage.has_results and usage.last_use <= latest:
                yield usage.last_use, usage, None

    async def _evict_base(self, base: CachedBase) -> bool:
        trash = self._paths.scratch()
        removed = self._cache.remove_unused(base, trash)
        await asyncio.to_thread(shutil.rmtree, trash, ignore_errors=True)
        if removed:
            self.evicted_bases += 1
            _log.info("evicted a base", repository_id=base.repository_id, commit_id=base.commit_id, bytes=base.bytes)
        return removed

    async def _evict_mirror(self, usage: RepositoryUsage) -> bool:
        if self._cache.is_held(usage.repository_id) or self._cache.lends(usage.repository_id):
            return False
        trash = self._paths.scratch()
        with contextlib.ExitStack() as locks:
            try:
                for path in (self._paths.mirror_lock, self._paths.result_lock):
                    locks.callback(FileLock(path(usage.repository_id)).release)
            except LockHeldError:
                return False
            for path in (self._paths.mirror, self._paths.result_store, self._paths.fetched_lfs):
                if path(usage.repository_id).is_dir():
                    path(usage.repository_id).rename(trash / path.__name__)
        await asyncio.to_thread(shutil.rmtree, trash, ignore_errors=True)
        self.evicted_mirrors += 1
        _log.info("evicted a mirror", repository_id=usage.repository_id, bytes=usage.bytes)
        return True

    def _refusal(self, usages: list[RepositoryUsage], size: int, short: int) -> str:
        used = sum(usage.bytes for usage in usages)
        free = shutil.disk_usage(self._paths.root).free
        limits = self._limits
        return (
            f"{size >> 20} MiB are needed under {self._paths.root}, and {-(-short >> 20)} MiB of them are missing:"
            f" {used >> 20} MiB are kept (BOATYARD_GIT_DISK_BUDGET_BYTES allows {limits.budget_bytes >> 20}; 0: any)"
            f" and {free >> 20} MiB are free (BOATYARD_GIT_MIN_FREE_BYTES keeps {limits.min_free_bytes >> 20})."
            f" Everything that is kept is in use, or was handed out in the last {limits.grace_seconds:g} s"
            " (BOATYARD_GIT_BASE_GRACE_SECONDS): delete workspaces, or allow more"
        )


def _has_refs(store: Path) -> bool:
    """True when a result store has any ref, as a file of its own or packed."""
    if any(path.is_file() for path in (store / "refs").rglob("*")):
        return True
    try:
        packed = (store / "packed-refs").read_bytes()
    except FileNotFoundError:
        return False
    return any(line and not line.startswith((b"#", b"^")) for line in packed.splitlines())
