"""What an agent changed in an overlay, read from its upper directory, so that not every file has to be read.

Only names and kinds are read here, with our rights; git reads the contents, in the sandbox, through the mounted
overlay. So a mistake here could at worst omit a path, and docs/decisions/0010 says why none is omitted.
"""

import errno
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DOT_GIT: Final = b".git"


@dataclass(frozen=True, slots=True)
class UpperListing:
    """The content of an upper directory: paths from the top of the tree, without the `.git` of repositories.

    `files` are regular files and links; `gone` are whiteouts, and what git cannot store: pipes, sockets, devices.
    `opaque` directories hide the same directory of the lower layers. `moved` ones show another directory of the lower
    layers, and are not descended into.
    """

    files: tuple[bytes, ...] = ()
    gone: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    opaque: tuple[bytes, ...] = ()
    moved: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A path of an index, and for a submodule the commit that it links to."""

    path: bytes
    link: bytes = b""


@dataclass(frozen=True, slots=True)
class UpperChanges:
    """What turns the index of the commit below into that of the working tree: `removed` first, then `read`.

    `lost` are submodules with content: their link stays as it was, because the content belongs to another repository.
    """

    removed: tuple[bytes, ...]
    read: tuple[bytes, ...]
    lost: tuple[bytes, ...]


def read_upper(upper: Path, *, mounted_by_root: bool) -> UpperListing:
    """List an upper directory. Blocks, in proportion to the number of changes.

    Overlays have two kinds of attributes, root's and the user's. Only the kind of this mount counts: the agent can set
    the other one itself.

    Raises:
        OSError: a directory cannot be read.
    """
    prefix = "trusted.overlay." if mounted_by_root else "user.overlay."
    paths_by_kind: dict[str, list[bytes]] = {"files": [], "gone": [], "directories": [], "opaque": [], "moved": []}
    top = os.fsencode(upper)
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for entry, path in _entries(top, directory):
            if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                paths_by_kind["files"].append(path)
            elif not entry.is_dir(follow_symlinks=False):
                paths_by_kind["gone"].append(path)
            elif _attribute(entry.path, prefix + "redirect"):
                paths_by_kind["moved"].append(path)
            else:
                paths_by_kind["directories"].append(path)
                waiting.append(path)
                if _attribute(entry.path, prefix + "opaque") == b"y":
                    paths_by_kind["opaque"].append(path)
    return UpperListing(**{kind: tuple(paths) for kind, paths in paths_by_kind.items()})


def can_read_roots_attributes(directory: Path) -> bool:
    """True when we can read the attributes of root's overlays: without the right, one finds none, and gets no error."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        try:
            os.setxattr(file.name, "trusted.boatyard", b"y")
        except OSError:
            return False
    return True


def compare(entries: Iterable[IndexEntry], upper: UpperListing) -> UpperChanges:
    """Compare with the commit whose tree lies below the upper directory. `upper` has the files of `moved` already."""
    listed = _SortedPaths(entries)
    files, directories = set(upper.files), set(upper.directories)
    removed = {path for hidden in (*upper.opaque, *upper.moved) for path in listed.below(hidden)}
    for path in (*upper.gone, *upper.files):
        # If this was a directory, it is none any more.
        removed.update(listed.below(path))
    removed.update(path for path in (*upper.gone, *upper.directories) if path in listed)
    # A submodule exists as long as its directory does.
    removed -= files | (listed.links & directories)
    inside = _SortedPaths(IndexEntry(path) for path in files)
    content = {link: tuple(inside.below(link)) for link in listed.links - removed}
    files.difference_update(*content.values())
    lost = tuple(sorted(link for link, paths in content.items() if paths))
    return UpperChanges(tuple(sorted(removed)), tuple(sorted(files)), lost)


class _SortedPaths:
    """Sorted paths, so that those below a directory are a slice."""

    def __init__(self, entries: Iterable[IndexEntry]) -> None:
        kept = list(entries)
        self._all = {entry.path for entry in kept}
        self._sorted = sorted(self._all)
        self.links = {entry.path for entry in kept if entry.link}

    def __contains__(self, path: bytes) -> bool:
        return path in self._all

    def below(self, directory: bytes) -> list[bytes]:
        # `0` is the character that follows `/` in ASCII.
        return self._sorted[bisect_left(self._sorted, directory + b"/") : bisect_left(self._sorted, directory + b"0")]


def _entries(top: bytes, directory: bytes) -> Iterator[tuple["os.DirEntry[bytes]", bytes]]:
    with os.scandir(os.path.join(top, directory)) as entries:  # noqa: PTH118 - names are bytes
        for entry in entries:
            if entry.name != _DOT_GIT:
                yield entry, directory + b"/" + entry.name if directory else entry.name


def _attribute(path: bytes, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP}:
            return b""
        raise
