"""The uids of the host that own workspaces, each its own: see `services.sandbox.host_uids`.

Each cell of a machine has a range of them. Which one is a link in a directory of the machine, from the range's number
to the directory with the cell's workspaces: it holds for as long as that exists, whether the cell runs or not.
A workspace's files say which uid it has.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.common.errors import Exhausted
from services.sandbox import host_uids

REGISTRY = Path("/var/lib/boatyard/uids")
SIZE = 1 << 16
"""The uids of one cell: more than it has workspaces, so that those of removed ones rest for long."""

_OWNED = ("upper", "tree")
"""What of a workspace's directory belongs to its owner, whichever driver has made it."""


class Owners:
    """Hands out uids for the workspaces in one directory, none that a workspace there has."""

    def __init__(self, directory: Path, registry: Path = REGISTRY) -> None:
        """Blocks for as long as it takes to look at each workspace. Raises OSError: the registry cannot be written."""
        self._directory = directory
        self._range = _claim(directory, registry)
        self._free = deque(self._unused())

    def take(self) -> int:
        """Return a uid for a new workspace. Raises Exhausted(WORKSPACES_QUOTA)."""
        if not self._free:
            self._free.extend(self._unused())
        if not self._free:
            raise Exhausted(
                "WORKSPACES_QUOTA",
                f"there are {SIZE} workspaces, as many as there are uids for them; delete or sweep some",
                quota="workspaces",
                metadata={"used": str(SIZE), "limit": str(SIZE)},
            )
        return self._free.popleft()

    def _unused(self) -> list[int]:
        used = set(_owners_below(self._directory))
        return [uid for uid in self._range if uid not in used]


def _claim(directory: Path, registry: Path) -> range:
    """Return the range of the cell with these workspaces, which is its own from now on if it had none."""
    registry.mkdir(mode=0o700, parents=True, exist_ok=True)
    if registry.stat().st_mode & 0o077:  # of an earlier version; whoever can open it can lock it for ever
        registry.chmod(0o700)
    with _exclusively(registry):
        links = {int(entry.name): Path(entry).readlink() for entry in os.scandir(registry) if entry.is_symlink()}
        mine = [number for number, target in links.items() if target == directory]
        numbers = range(len(host_uids.ALL) // SIZE)
        number = mine[0] if mine else next(n for n in numbers if n not in links or not links[n].is_dir())
        if not mine:
            (registry / str(number)).unlink(missing_ok=True)
            (registry / str(number)).symlink_to(directory)
    return host_uids.ALL[number * SIZE : (number + 1) * SIZE]


@contextmanager
def _exclusively(registry: Path) -> Iterator[None]:
    descriptor = os.open(registry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _owners_below(directory: Path) -> Iterator[int]:
    """Yield the owners of all workspaces, of those that are being made or removed too."""
    for pattern in ("*", ".*/*"):
        for place in directory.glob(pattern):
            for name in _OWNED:
                uid = host_uids.owner(place / name)
                if uid is not None:
                    yield uid
