"""What an agent changed: a listing of its tree, or of an overlay's upper directory, compared with a commit.

Of an upper directory only names and kinds are read, with our rights; git reads the contents, in the sandbox, through
the mounted overlay. So a mistake here could at worst omit a path, and docs/decisions/0010 says why none is omitted.
"""

import errno
import os
import stat
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_DOT_GIT: Final = b".git"


@dataclass(frozen=True, slots=True)
class TreeListing:
    """The content of a tree, or of an upper directory: paths from the top, without the `.git` of repositories.

    `files` are regular files and links, `special` is what git does not know: pipes, sockets, devices. What is
    `unreadable` or `too_long` is not descended into.

    Of an upper directory, `gone` are whiteouts, `opaque` directories hide the same directory of the lower layers, and
    `moved` ones show another directory of the lower layers, and are not descended into.
    """

    files: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    special: tuple[bytes, ...] = ()
    unreadable: tuple[bytes, ...] = ()
    too_long: tuple[bytes, ...] = ()
    gone: tuple[bytes, ...] = ()
    opaque: tuple[bytes, ...] = ()
    moved: tuple[bytes, ...] = ()

    def with_moved(self, moved: "TreeListing") -> "TreeListing":
        """Return the same listing with the content of the directories that it does not descend into."""
        return replace(
            self,
            files=(*self.files, *moved.files),
            directories=(*self.directories, *self.moved, *moved.directories),
            special=(*self.special, *moved.special),
            unreadable=(*self.unreadable, *moved.unreadable),
            too_long=(*self.too_long, *moved.too_long),
        )

    def as_whole(self) -> "TreeListing":
        """Return the listing of a whole tree as that of an upper directory that hides all that is below it."""
        return replace(self, opaque=(b"",))

    def read_as(self, whole: "TreeListing") -> "TreeListing":
        """Return the listing of an upper directory with what cannot be read of the whole tree."""
        return replace(self, unreadable=whole.unreadable, too_long=whole.too_long)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A path of an index: its mode, and the object, which for a submodule is the commit that it links to."""

    path: bytes
    mode: bytes = b"100644"
    object_id: bytes = b""

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return self.mode in {b"100644", b"100755"}

    @property
    def is_link(self) -> bool:
        """True for a submodule."""
        return self.mode == b"160000"


@dataclass(frozen=True, slots=True)
class TreeChanges:
    """What turns the index of the commit below into that of the working tree: `removed` first, then `read`.

    Each is sorted. `submodules` are those with content: their link stays as it was, because the content belongs to
    another repository.
    """

    removed: tuple[bytes, ...]
    read: tuple[bytes, ...]
    submodules: tuple[bytes, ...]


def read_upper(upper: Path, *, mounted_by_root: bool) -> TreeListing:
    """List an upper directory. Blocks, in proportion to the number of changes.

    Overlays have two kinds of attributes, root's and the user's. Only the kind of this mount counts: the agent can set
    the other one itself.

    Raises:
        OSError: a directory cannot be read.
    """
    prefix = "trusted.overlay." if mounted_by_root else "user.overlay."
    kinds = ("files", "special", "gone", "directories", "opaque", "moved")
    paths_by_kind: dict[str, list[bytes]] = {kind: [] for kind in kinds}
    top = os.fsencode(upper)
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for entry, path in _entries(top, directory):
            if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                paths_by_kind["files"].append(path)
            elif not entry.is_dir(follow_symlinks=False):
                paths_by_kind["gone" if _is_whiteout(entry) else "special"].append(path)
            elif _attribute(entry.path, prefix + "redirect"):
                paths_by_kind["moved"].append(path)
            else:
                paths_by_kind["directories"].append(path)
                waiting.append(path)
                if _attribute(entry.path, prefix + "opaque") == b"y":
                    paths_by_kind["opaque"].append(path)
    return TreeListing(**{kind: tuple(paths) for kind, paths in paths_by_kind.items()})


def can_read_roots_attributes(directory: Path) -> bool:
    """True when we can read the attributes of root's overlays: without the right, one finds none, and gets no error."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        try:
            os.setxattr(file.name, "trusted.boatyard", b"y")
        except OSError:
            return False
    return True


def compare(entries: Iterable[IndexEntry], upper: TreeListing) -> TreeChanges:
    """Compare with the commit whose tree lies below the upper directory. `upper` has the files of `moved` already.

    What cannot be read stays as it was.
    """
    listed = _SortedPaths(entries)
    files, directories = set(upper.files), set(upper.directories)
    removed = {path for hidden in (*upper.opaque, *upper.moved) for path in listed.below(hidden)}
    for path in (*upper.gone, *upper.special, *upper.files):
        # If this was a directory, it is none any more.
        removed.update(listed.below(path))
    removed.update(path for path in (*upper.gone, *upper.special, *upper.directories) if path in listed)
    listed_files = _SortedPaths(IndexEntry(path) for path in files)
    for path in (*upper.unreadable, *upper.too_long):
        removed.difference_update((path, *listed.below(path)))
        files.difference_update((path, *listed_files.below(path)))
    # A submodule exists as long as its directory does.
    removed -= files | (listed.links & directories)
    inside = _SortedPaths(IndexEntry(path) for path in files)
    content = {link: tuple(inside.below(link)) for link in listed.links - removed}
    files.difference_update(*content.values())
    submodules = tuple(sorted(link for link, paths in content.items() if paths))
    return TreeChanges(tuple(sorted(removed)), tuple(sorted(files)), submodules)


class _SortedPaths:
    """Sorted paths, so that those below a directory are a slice."""

    def __init__(self, entries: Iterable[IndexEntry]) -> None:
        kept = list(entries)
        self._all = {entry.path for entry in kept}
        self._sorted = sorted(self._all)
        self.links = {entry.path for entry in kept if entry.is_link}

    def __contains__(self, path: bytes) -> bool:
        return path in self._all

    def below(self, directory: bytes) -> list[bytes]:
        if not directory:
            return self._sorted
        # `0` is the character that follows `/` in ASCII.
        return self._sorted[bisect_left(self._sorted, directory + b"/") : bisect_left(self._sorted, directory + b"0")]


def _entries(top: bytes, directory: bytes) -> Iterator[tuple["os.DirEntry[bytes]", bytes]]:
    with os.scandir(os.path.join(top, directory)) as entries:  # noqa: PTH118 - names are bytes
        for entry in entries:
            if entry.name != _DOT_GIT:
                yield entry, directory + b"/" + entry.name if directory else entry.name


def _is_whiteout(entry: "os.DirEntry[bytes]") -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _attribute(path: bytes, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP}:
            return b""
        raise
