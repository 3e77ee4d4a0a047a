"""The disk use of workspaces, without their bases, and whether there is room for another."""

import asyncio
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import Exhausted
from services.workspace.drivers import Choice
from services.workspace.drivers.disk import tree_size
from services.workspace.model import Workspace

_FRESH_S = 10.0
"""How long a measurement is used."""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes on disk, and inodes, that a workspace uses in addition to its base."""

    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Disk:
    """The free space of the disk with the workspaces; None inodes when it makes them on demand."""

    free_bytes: int
    free_inodes: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """The disk use of the workspaces of a page, and of all, as far as they have been measured."""

    page: Sequence[tuple[Workspace, DiskUse]]
    total: DiskUse
    disk: Disk
    choice: Choice
    next_page_token: str


class UsageMeter:
    """Measures the files of workspaces, one workspace at a time, off the event loop, and caches that for 10 s.

    `max_bytes` is how large one workspace may grow, `total_bytes` how much all may use together (None: no bound), and
    `reserve_bytes` of the disk have to stay free.
    """

    def __init__(
        self, directory: Path, *, reserve_bytes: int, max_bytes: int | None = None, total_bytes: int | None = None
    ) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self.max_bytes = max_bytes
        self._total_bytes = total_bytes
        self._measured: dict[str, tuple[DiskUse, float]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def use(self, workspace_id: str, *directories: Path) -> DiskUse:
        """Return the disk use of a workspace, which is what is in these directories; zero when it is gone."""
        async with self._one_at_a_time:
            known = self._measured.get(workspace_id)
            if known is not None and time.monotonic() - known[1] < _FRESH_S:
                return known[0]
            sizes = [await asyncio.to_thread(tree_size, directory) for directory in directories]
            use = DiskUse(sum(size for size, _ in sizes), sum(count for _, count in sizes))
            self._measured[workspace_id] = (use, time.monotonic())
            return use

    def forget(self, workspace_id: str) -> None:
        """Remove a workspace from the total."""
        self._measured.pop(workspace_id, None)

    def total(self) -> DiskUse:
        """Return the disk use of all workspaces, as far as they have been measured."""
        uses = [use for use, _ in self._measured.values()]
        return DiskUse(sum(use.bytes for use in uses), sum(use.inodes for use in uses))

    def disk(self) -> Disk:
        """Return the free space now."""
        disk = os.statvfs(self._directory)
        return Disk(disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else None)

    @property
    def is_bounded(self) -> bool:
        """True when `admit` has a bound to check."""
        return self.max_bytes is not None or self._total_bytes is not None

    def admit(self, growing: Collection[str]) -> None:
        """Raise Exhausted when there is no room for another workspace.

        `growing` are the workspaces that are still worked in: each may grow to `max_bytes`.
        """
        total = self.total().bytes
        if self._total_bytes is not None and total >= self._total_bytes:
            raise Exhausted(
                "WORKSPACES_QUOTA",
                f"workspaces take {total} bytes of the {self._total_bytes} that they may; delete or sweep some",
                quota="workspaces",
                metadata={"used": str(total), "limit": str(self._total_bytes)},
            )
        if self.max_bytes is None:
            return
        used = {name: use.bytes for name, (use, _) in self._measured.items()}
        promised = sum(max(0, self.max_bytes - used.get(name, 0)) for name in growing) + self.max_bytes
        free = self.disk().free_bytes - self._reserve_bytes
        if promised > free:
            raise Exhausted(
                "DISK_FULL",
                f"workspaces in use may come to take {promised} bytes more, and {max(0, free)} are free; delete or "
                "sweep workspaces, or free space otherwise",
                quota=str(self._directory),
                metadata={"promised": str(promised), "free": str(max(0, free))},
            )
