"""The cache of base trees: their layout on the disk, and what is known of one without reading its tree.

    <base>/tree     the whole tree of a commit, or a layer that makes it from the base below
    <base>/about    the base below, this one's size, and the mirrors of its submodules; written last, before the
                    directory is renamed into place
    <base>/pins/    an empty file for each user of the base; users create and remove them, under names of their own

The modification time of <base> is the time of its last use.
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
    """A base in the cache. `bytes` and `inodes` count its own layer only; `below` is the base that it lies on.

    It borrows objects from the mirror of its repository, and from those in `borrows`.
    """

    path: Path
    bytes: int
    inodes: int
    below: "CachedBase | None" = None
    borrows: tuple[str, ...] = ()

    @property
    def commit_id(self) -> str:
        """The commit whose tree it is."""
        return self.path.name.partition("-")[0]

    @property
    def submodules_key(self) -> str:
        """Which submodules are in the tree; empty when it has none."""
        return self.path.name.partition("-")[2]

    @property
    def repository_id(self) -> str:
        """The repository of that commit."""
        return self.path.parent.name

    @property
    def layers(self) -> tuple[Path, ...]:
        """The directories that together make the tree, topmost first."""
        return (self.path / "tree", *(self.below.layers if self.below else ()))

    @property
    def whole(self) -> "CachedBase":
        """The whole tree at the bottom."""
        return self.below.whole if self.below else self

    @property
    def pins_path(self) -> Path:
        """The directory of its users' pins."""
        return self.path / "pins"

    @property
    def pins(self) -> int:
        """The number of its users."""
        return sum(1 for _ in self.pins_path.iterdir())

    @property
    def last_use(self) -> float:
        """When it was last handed out or unpinned, in seconds since 1970."""
        return max(self.path.stat().st_mtime, self.pins_path.stat().st_mtime)


class BaseCache:
    """Finds, adds and removes bases. Each method makes a few system calls; no other process adds or removes bases."""

    def __init__(self, paths: GitPaths) -> None:
        self._paths = paths
        self._roots = (paths.bases, paths.result_bases)
        self._held: Counter[str] = Counter()

    def find(self, path: Path) -> CachedBase | None:
        """Return the base at a path, None when there is none."""
        try:
            about = json.loads((path / "about").read_bytes())
        except FileNotFoundError:
            return None
        below = None
        if about["below"]:
            is_beside = about.get("beside", False)
            below = self.find(path.with_name(about["below"]) if is_beside else self._base(path, about["below"]))
            if below is None:
                raise RuntimeError(f"{path} lies on the base of {about['below']}, which is missing: remove both")
        return CachedBase(path, about["bytes"], about["inodes"], below, tuple(about.get("borrows", ())))

    def _base(self, path: Path, name: str) -> Path:
        """Return where the base of that name is on which another one lies."""
        return self._paths.base(path.parent.name, name)

    def hand_out(self, path: Path) -> CachedBase | None:
        """Find a base, and mark it and all bases below it as used now."""
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
        """Return a repository's bases of upstream commits, most recently used first."""
        bases = (self.find(path) for path in (self._paths.bases / repository_id).glob("*"))
        return sorted((base for base in bases if base is not None), key=lambda base: -base.last_use)

    def put(
        self,
        building: Path,
        path: Path,
        size: tuple[int, int],
        below: CachedBase | None,
        borrows: tuple[str, ...] = (),
    ) -> None:
        """Move a finished build, a directory with a `tree`, into the cache. `size` is (bytes, inodes)."""
        (building / "pins").mkdir(mode=0o700)
        about = {"below": below.path.name if below else None, "bytes": size[0], "inodes": size[1]}
        is_beside = below is not None and below.path.parent == path.parent
        (building / "about").write_text(json.dumps(about | {"beside": is_beside, "borrows": borrows}))
        building.chmod(0o755)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            building.rename(path)
        except OSError as error:
            # The same base was built meanwhile: keep that one.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise

    def lends(self, mirror_id: str) -> bool:
        """True when a base borrows objects from the mirror of a submodule."""
        return any(mirror_id in base.borrows for base in self.all())

    def remove_unused(self, base: CachedBase, trash: Path) -> bool:
        """Move an unused base into `trash`; return False when it is in use after all."""
        if self.is_held(base.repository_id) or base.pins or self._lies_below_another(base):
            return False
        base.path.rename(trash / "base")
        if any((trash / "base" / "pins").iterdir()):  # pinned between our check and our rename
            (trash / "base").rename(base.path)
            return False
        with contextlib.suppress(OSError):  # the repository has other bases
            base.path.parent.rmdir()
        return True

    def _lies_below_another(self, base: CachedBase) -> bool:
        """True when another base lies on this one."""
        others = (self.find(path) for root in self._roots for path in (root / base.repository_id).glob("*"))
        return any(other.below is not None and other.below.path == base.path for other in others if other)

    @contextlib.contextmanager
    def holding(self, repository_id: str) -> Iterator[None]:
        """Protect everything of a repository from removal while something is built from it."""
        self._held[repository_id] += 1
        try:
            yield
        finally:
            self._held[repository_id] -= 1
            if not self._held[repository_id]:
                del self._held[repository_id]

    def is_held(self, repository_id: str) -> bool:
        """True while something is built from the repository."""
        return repository_id in self._held

    def remove_broken(self) -> None:
        """Remove, at start-up, bases without a valid `about`, and layers whose base below is missing."""
        for root in self._roots:
            for path in root.glob("*/*"):
                try:
                    whole = self.find(path) is not None
                except (RuntimeError, ValueError, KeyError):
                    whole = False
                if not whole:
                    trash = self._paths.scratch()
                    path.rename(trash / "base")
                    shutil.rmtree(trash, ignore_errors=True)
