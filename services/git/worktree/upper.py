"""What an agent changed on layers, told by the directory that took its changes, so that nobody has to read all files.

Only names and kinds are read here, with our rights; what the files hold is read by git, in the sandbox, through the
stacked tree. So a wrong guess here could at worst leave a path out, and docs/decisions/0010 says why none is.
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
    """What lies in an upper directory: paths from the top of the tree, repositories' `.git` left out.

    `files` are regular files and links; `gone` are whiteouts, and what git cannot keep: pipes, sockets, devices.
    `opaque` directories hide what lies below them. `moved` ones show what lies elsewhere below, and are not descended.
    """

    files: tuple[bytes, ...] = ()
    gone: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    opaque: tuple[bytes, ...] = ()
    moved: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A path of a commit's tree, and the commit that it links to where it is a submodule."""

    path: bytes
    link: bytes = b""


@dataclass(frozen=True, slots=True)
class UpperChanges:
    """What makes the index of the working tree from that of the commit below: `removed` first, then `read`.

    `lost` are submodules that have content: the link stays as it was, for theirs is another repository.
    """

    removed: tuple[bytes, ...]
    read: tuple[bytes, ...]
    lost: tuple[bytes, ...]


def read_upper(upper: Path, *, mounted_by_root: bool) -> UpperListing:
    """Read the names in an upper directory. Blocks, for as long as there are changes.

    Of the two kinds of attributes that overlays write, only that of the mount's own kind counts: the other is the
    agent's to set.

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
    """Whether we are shown the attributes of root's overlays: who may not see them sees none, and no error."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        try:
            os.setxattr(file.name, "trusted.boatyard", b"y")
        except OSError:
            return False
    return True


def compare(entries: Iterable[IndexEntry], upper: UpperListing) -> UpperChanges:
    """Say what differs from a commit whose tree lies below the upper directory; `upper.moved` has been looked into."""
    listed = _SortedPaths(entries)
    files, directories = set(upper.files), set(upper.directories)
    removed = {path for hidden in (*upper.opaque, *upper.moved) for path in listed.below(hidden)}
    for path in (*upper.gone, *upper.files):
        # What was a directory is none any more.
        removed.update(listed.below(path))
    removed.update(path for path in (*upper.gone, *upper.directories) if path in listed)
    # A submodule is there as long as its directory is.
    removed -= files | (listed.links & directories)
    inside = _SortedPaths(IndexEntry(path) for path in files)
    content = {link: tuple(inside.below(link)) for link in listed.links - removed}
    files.difference_update(*content.values())
    lost = tuple(sorted(link for link, paths in content.items() if paths))
    return UpperChanges(tuple(sorted(removed)), tuple(sorted(files)), lost)


class _SortedPaths:
    """Paths in order, so that those below a directory are a slice."""

    def __init__(self, entries: Iterable[IndexEntry]) -> None:
        kept = list(entries)
        self._all = {entry.path for entry in kept}
        self._sorted = sorted(self._all)
        self.links = {entry.path for entry in kept if entry.link}

    def __contains__(self, path: bytes) -> bool:
        return path in self._all

    def below(self, directory: bytes) -> list[bytes]:
        # `0` is the character after `/`.
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
