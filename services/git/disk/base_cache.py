"""The shelf of bases: how one lies on the disk, and what is known of it without looking into its tree.

    <place>/tree     the whole tree of a commit, or a layer that makes it of the base below
    <place>/about    what lies below, and the size of this one; written last, before the place gets its name
    <place>/pins/    an empty file for each that uses the base; the users keep them, under names of their own

The time of a place is that of its last use.
"""

import contextlib
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.git.paths import GitPaths


@dataclass(frozen=True, slots=True)
class CachedBase:
    """A base that is there. `bytes` and `inodes` are its own layer's; `below` is the base that it lies on."""

    path: Path
    bytes: int
    inodes: int
    below: "CachedBase | None" = None

    @property
    def commit_id(self) -> str:
        """The commit whose tree it is."""
        return self.path.name

    @property
    def repository_id(self) -> str:
        """Whose commit that is."""
        return self.path.parent.name

    @property
    def layers(self) -> tuple[Path, ...]:
        """The directories that together are the tree, the topmost first."""
        return (self.path / "tree", *(self.below.layers if self.below else ()))

    @property
    def whole(self) -> "CachedBase":
        """The whole tree at the bottom."""
        return self.below.whole if self.below else self

    @property
    def pins_path(self) -> Path:
        """The directory of those who use it."""
        return self.path / "pins"

    @property
    def pins(self) -> int:
        """How many use it."""
        return sum(1 for _ in self.pins_path.iterdir())

    @property
    def last_use(self) -> float:
        """When it was handed out or let go last, in seconds since 1970."""
        return max(self.path.stat().st_mtime, self.pins_path.stat().st_mtime)


class BaseCache:
    """Finds, adds and removes bases. Every method is a few system calls; no other process adds or removes."""

    def __init__(self, paths: GitPaths) -> None:
        self._paths = paths
        self._roots = (paths.bases, paths.result_bases)
        self._held: Counter[str] = Counter()

    def find(self, path: Path) -> CachedBase | None:
        """Return the base at a place, None where there is none."""
        try:
            about = json.loads((path / "about").read_bytes())
        except FileNotFoundError:
            return None
        below = None
        if about["below"]:
            below = self.find(self._paths.base(path.parent.name, about["below"]))
            if below is None:
                raise RuntimeError(f"{path} lies on the base of {about['below']}, which is gone: remove both")
        return CachedBase(path, about["bytes"], about["inodes"], below)

    def hand_out(self, path: Path) -> CachedBase | None:
        """Find a base and note that it is used now, with those that it lies on."""
        base = level = self.find(path)
        while level is not None:
            os.utime(level.path)
            level = level.below
        return base

    def all(self) -> list[CachedBase]:
        """Return every base of every repository."""
        bases = (self.find(path) for root in self._roots for path in root.glob("*/*"))
        return [base for base in bases if base is not None]

    def of(self, repository_id: str) -> list[CachedBase]:
        """Return the bases of upstream commits of a repository, the last used first."""
        bases = (self.find(path) for path in (self._paths.bases / repository_id).glob("*"))
        return sorted((base for base in bases if base is not None), key=lambda base: -base.last_use)

    def put(self, building: Path, path: Path, size: tuple[int, int], below: CachedBase | None) -> None:
        """Move what was built, a directory with a `tree`, to its place; `size` is (bytes, inodes)."""
        (building / "pins").mkdir(mode=0o700)
        about = {"below": below.commit_id if below else None, "bytes": size[0], "inodes": size[1]}
        (building / "about").write_text(json.dumps(about))
        building.chmod(0o755)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            building.rename(path)
        except OSError as error:
            # Somebody else made the same tree meanwhile: it is the same.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise

    def remove_unused(self, base: CachedBase, rubbish: Path) -> bool:
        """Move a base that nobody uses into `rubbish`; return False where somebody does after all."""
        if self.is_held(base.repository_id) or base.pins or self._lies_below_another(base):
            return False
        base.path.rename(rubbish / "base")
        if any((rubbish / "base" / "pins").iterdir()):  # pinned between our look and our move
            (rubbish / "base").rename(base.path)
            return False
        with contextlib.suppress(OSError):  # others of the repository are there
            base.path.parent.rmdir()
        return True

    def _lies_below_another(self, base: CachedBase) -> bool:
        """Whether another base lies on this one."""
        others = (self.find(path) for root in self._roots for path in (root / base.repository_id).glob("*"))
        return any(other.below is not None and other.below.path == base.path for other in others if other)

    @contextlib.contextmanager
    def holding(self, repository_id: str) -> Iterator[None]:
        """Keep what a repository has here from being removed, while something is made from it."""
        self._held[repository_id] += 1
        try:
            yield
        finally:
            self._held[repository_id] -= 1
            if not self._held[repository_id]:
                del self._held[repository_id]

    def is_held(self, repository_id: str) -> bool:
        """Whether something is being made from what the repository has here."""
        return repository_id in self._held

    def remove_broken(self) -> None:
        """Remove at the start what no `about` belongs to, and what lies on nothing."""
        for root in self._roots:
            for path in root.glob("*/*"):
                try:
                    whole = self.find(path) is not None
                except (RuntimeError, ValueError, KeyError):
                    whole = False
                if not whole:
                    rubbish = self._paths.scratch()
                    path.rename(rubbish / "base")
                    shutil.rmtree(rubbish, ignore_errors=True)
