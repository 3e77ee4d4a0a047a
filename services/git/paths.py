"""Where the git service keeps its files: on one file system, so that what is built aside can be renamed into place."""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.home import Home
from services.git import failures

_PATH_BYTES: Final = 4095  # PATH_MAX, less the closing NUL
_WORKSPACE_TREES: Final = Path("workspace", "trees")
"""Below the data directory: where agents' working trees lie, the only ones of ours that git is run on."""


@dataclass(frozen=True, slots=True)
class GitPaths:
    """The directories under `$BOATYARD_HOME/git`."""

    home: Home

    @property
    def root(self) -> Path:
        """The directory of all the git service's files."""
        return self.home.root / "git"

    def make(self) -> None:
        """Make the missing directories, and remove what crashes left half built."""
        remove_tree(self.scratch_root)
        self.home.directory("git")
        for path in (
            self.scratch_root,
            self.empty,
            self.mirrors,
            self.bases,
            self.result_bases,
            self.results,
            self.lfs,
            self.artifacts,
            self.clones,
        ):
            path.mkdir(mode=0o700, exist_ok=True)

    @property
    def scratch_root(self) -> Path:
        """What is being built. Nothing in here belongs to anyone after a restart."""
        return self.root / "building"

    @property
    def empty(self) -> Path:
        """An empty directory: git's home."""
        return self.root / "empty"

    @property
    def mirrors(self) -> Path:
        """Bare repositories with upstream's objects only; sandboxes see their `objects/`."""
        return self.root / "mirrors"

    @property
    def bases(self) -> Path:
        """Prepared trees, by repository and commit."""
        return self.root / "bases"

    @property
    def result_bases(self) -> Path:
        """Prepared trees of results, by repository and commit; used once or twice, and soon evicted."""
        return self.root / "result-bases"

    @property
    def results(self) -> Path:
        """Bare repositories with the results of agents; no sandbox sees them."""
        return self.root / "results"

    @property
    def lfs(self) -> Path:
        """Objects of Git LFS that were fetched from remotes, by repository; no sandbox sees them."""
        return self.root / "lfs"

    @property
    def artifacts(self) -> Path:
        """Files of agents that are kept beside results, by the id that they are kept under."""
        return self.root / "artifacts"

    @property
    def clones(self) -> Path:
        """Plain clones, by id."""
        return self.root / "clones"

    def mirror(self, repository_id: str) -> Path:
        """The mirror of a repository."""
        return self.mirrors / f"{repository_id}.git"

    def mirror_lock(self, repository_id: str) -> Path:
        """The lock that a writer to the mirror holds."""
        return self.mirrors / f"{repository_id}.lock"

    def base(self, repository_id: str, commit_id: str, submodules_key: str = "") -> Path:
        """The directory around the prepared tree of a commit, with its submodules."""
        return self.bases / repository_id / _base_name(commit_id, submodules_key)

    def result_base(self, repository_id: str, commit_id: str, submodules_key: str = "") -> Path:
        """The directory around the prepared tree of a result, with its submodules."""
        return self.result_bases / repository_id / _base_name(commit_id, submodules_key)

    def result_store(self, repository_id: str) -> Path:
        """The store of a repository's results."""
        return self.results / f"{repository_id}.git"

    def fetched_lfs(self, repository_id: str) -> Path:
        """The objects of Git LFS that were fetched for a repository. They can be fetched again."""
        return self.lfs / repository_id

    def result_lfs(self, repository_id: str) -> Path:
        """The objects of Git LFS that a repository's results have and its remote does not."""
        return self.result_store(repository_id) / "lfs"

    def result_lock(self, repository_id: str) -> Path:
        """The lock that a writer to the result store holds."""
        return self.results / f"{repository_id}.lock"

    def layer_complaint(self, path: bytes) -> str | None:
        """Return why this may not be a lower layer: only prepared trees of ours may, and paths outside our data."""
        layer = Path(os.fsdecode(path))
        is_base = layer.name == "tree" and layer.parent.parent.parent in {self.bases, self.result_bases}
        if is_base and ".." not in layer.parts and b"\0" not in path:
            return None
        return self.tree_complaint(path)

    def tree_complaint(self, path: bytes) -> str | None:
        """Return why this may not be a working tree: it would show our data to a sandbox, or is not a valid path."""
        if not path.startswith(b"/") or b"\0" in path or len(path) > _PATH_BYTES:
            return "must be an absolute path"
        home = self.home.root.resolve()
        resolved = Path(os.fsdecode(path)).resolve()
        if home.is_relative_to(resolved):
            return "must not be around Boatyard's own data directory"
        if not resolved.is_relative_to(home):
            return None
        trees = (self.home.root / _WORKSPACE_TREES).resolve()
        if (resolved != trees and resolved.is_relative_to(trees)) or resolved.parent == self.clones.resolve():
            return None
        return "must not be inside Boatyard's own data directory, workspaces and clones apart"

    def may_be_borrowed(self, path: bytes) -> bool:
        """True when a sandbox may see this path: the objects of a mirror, and nothing else of ours."""
        directory = Path(os.fsdecode(path))
        return (
            directory.parent.parent == self.mirrors
            and directory.name == "objects"
            and ".." not in directory.parts
            and b"\0" not in path
        )

    def check_room(self, needed_bytes: int) -> None:
        """Raise Exhausted (DISK_FULL) when less than this is free: too little to begin anything large."""
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise failures.disk_full(f"{free >> 20} MiB are free under {self.root}, {needed_bytes >> 20} are needed")

    def scratch(self) -> Path:
        """A new directory to build in."""
        return Path(tempfile.mkdtemp(dir=self.scratch_root))


def _base_name(commit_id: str, submodules_key: str) -> str:
    return f"{commit_id}-{submodules_key}" if submodules_key else commit_id


def remove_tree(path: Path) -> None:
    """Remove a directory and everything in it, as far as possible.

    An overlay mounted without root leaves a directory with no permissions in its work directory; an ordinary user must
    grant them to himself before he can remove it.
    """
    shutil.rmtree(path, onerror=_open_up)
    shutil.rmtree(path, ignore_errors=True)


def _open_up(_function: object, name: str, _error: object) -> None:
    with contextlib.suppress(OSError):
        if Path(name).is_dir() and not Path(name).is_symlink():
            Path(name).chmod(0o700)
