"""Keeps objects of Git LFS by their hashes: what was fetched for a repository, and what its results have made.

lfs/<repository>/<oid>                   what was fetched, which can be fetched again
results/<repository>.git/lfs/<oid>       what results have made
results/<repository>.git/lfs/commits/<commit>    the pointers that a result has and its base has not
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.common.files import write_whole
from services.git.paths import GitPaths
from services.git.pointers import Pointer
from services.git.worktree.lfs_contents import LfsContents

_COMMITS: Final = "commits"


class LfsObjects:
    """The objects of repositories, which share none: what one's credentials may read another's may not.

    Every method blocks.
    """

    def __init__(self, paths: GitPaths) -> None:
        self._paths = paths

    def find(self, repository_id: str, pointer: Pointer) -> Path | None:
        """Return the file of an object, None when it is not here."""
        roots = (self._paths.fetched_lfs(repository_id), self._paths.result_lfs(repository_id))
        return next((path for root in roots if _is(path := _place(root, pointer), pointer)), None)

    def keep_fetched(self, repository_id: str, pointer: Pointer, file: Path) -> None:
        """Move a file, whose content has been checked, to where it is found."""
        _keep(_place(self._paths.fetched_lfs(repository_id), pointer), file)

    def keep_made(self, repository_id: str, commit_id: str, contents: LfsContents) -> None:
        """Keep what a result has in Git LFS: the objects that are not here, and a list of all its pointers."""
        root = self._paths.result_lfs(repository_id)
        for pointer, file in contents.files.items():
            if self.find(repository_id, pointer) is None:
                _keep(_place(root, pointer), file)
        (root / _COMMITS).mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = "".join(f"{pointer.oid} {pointer.size}\n" for pointer in sorted(contents.pointers))
        write_whole(root / _COMMITS / commit_id, lines.encode())

    def made(self, repository_id: str, commit_id: str) -> dict[Pointer, Path]:
        """Return what a push of a result has to bring along, its files by their pointers."""
        root = self._paths.result_lfs(repository_id)
        placed = {pointer: _place(root, pointer) for pointer in self._named(repository_id, commit_id)}
        return {pointer: path for pointer, path in placed.items() if _is(path, pointer)}

    def commits(self, repository_id: str) -> list[str]:
        """Return the results that have pointers."""
        return [path.name for path in (self._paths.result_lfs(repository_id) / _COMMITS).glob("*")]

    def forget(self, repository_id: str, commit_id: str) -> None:
        """Forget the pointers of a result that is no more."""
        (self._paths.result_lfs(repository_id) / _COMMITS / commit_id).unlink(missing_ok=True)

    def remove_unnamed(self, repository_id: str, older_than_seconds: float) -> None:
        """Remove what results have made that are no more, unless it is young: a result may be about to name it."""
        root = self._paths.result_lfs(repository_id)
        named = {
            each.oid for commit_id in self.commits(repository_id) for each in self._named(repository_id, commit_id)
        }
        for path in root.glob("??/*"):
            if path.name not in named and time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()

    def _named(self, repository_id: str, commit_id: str) -> Iterator[Pointer]:
        try:
            text = (self._paths.result_lfs(repository_id) / _COMMITS / commit_id).read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            oid, size = line.split()
            yield Pointer(oid, int(size))


def _place(root: Path, pointer: Pointer) -> Path:
    return root / pointer.oid[:2] / pointer.oid


def _is(path: Path, pointer: Pointer) -> bool:
    """True when there is a file of the pointer's size: one with its hash and another size names no content."""
    try:
        return path.stat().st_size == pointer.size
    except FileNotFoundError:
        return False


def _keep(place: Path, file: Path) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.replace(place)
