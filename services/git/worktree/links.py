"""To which commits of submodules a result links, and what it may not link to: commits that nobody else can get."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.git.gitcmd import GitError
from services.git.model import SubmoduleLink
from services.git.worktree.changes import IndexEntry, TreeChanges, TreeListing


class DanglingLinks(GitError):
    """An agent's own commits link to what nobody else can get; `paths` are submodules of the last one, to tell of."""

    def __init__(self, paths: frozenset[bytes]) -> None:
        super().__init__("commit-tree", "the agent's commits link to commits of submodules that nobody else can get")
        self.paths = paths


@dataclass(frozen=True, slots=True)
class Links:
    """The links of one working tree.

    `known` are those of the commit below, `moved` what is known of those that have changed, `added` the new ones among
    them that are published and are there.
    """

    known: Mapping[bytes, IndexEntry]
    moved: tuple[SubmoduleLink, ...]
    added: tuple[IndexEntry, ...]

    @classmethod
    def of(cls, entries: Mapping[bytes, IndexEntry], moved: tuple[SubmoduleLink, ...], listing: TreeListing) -> "Links":
        """Return the links of a tree, of which `entries` lie below."""
        directories = set(listing.directories) if moved else set()
        added = (_entry(link) for link in moved if link.is_published and link.path not in entries)
        known = {path: entry for path, entry in entries.items() if entry.is_link}
        return cls(known, moved, tuple(entry for entry in added if entry.path in directories))

    def in_result(self, changes: TreeChanges) -> dict[bytes, IndexEntry]:
        """Return the links of the result, by their paths."""
        gone = {*changes.removed, *changes.read}
        published = {link.path: _entry(link) for link in self.moved if link.is_published and link.path in self.known}
        links = {**self.known, **published, **{entry.path: entry for entry in self.added}}
        return {path: entry for path, entry in links.items() if path not in gone}

    def dangling(
        self,
        links: Mapping[bytes, IndexEntry],
        tracked: Iterable[IndexEntry],
        changes: TreeChanges,
        listing: TreeListing,
    ) -> frozenset[bytes]:
        """Return the submodules whose commits are not in the result, whose links are `links`.

        Where the commit below has a file in place of a submodule, the file is what the tree has; where a new one has
        content, its files are.
        """
        unpublished = {link.path for link in self.moved if not link.is_published} | self._not_kept(links, tracked)
        if not unpublished:
            return frozenset()
        empty = {path for path in unpublished.intersection(listing.directories) if not _is_inhabited(path, changes)}
        here = {*links, *empty} - {*changes.removed, *changes.read}
        return frozenset(unpublished & here)

    def refuse_commits(
        self, links: Mapping[bytes, IndexEntry], tracked: Iterable[IndexEntry], paths: frozenset[bytes]
    ) -> None:
        """Raise DanglingLinks when the agent's own commits have links that dangle at one of these paths."""
        if self._not_kept(links, tracked) & paths:
            raise DanglingLinks(paths)

    def _not_kept(self, links: Mapping[bytes, IndexEntry], tracked: Iterable[IndexEntry]) -> set[bytes]:
        return {
            entry.path
            for entry in tracked
            if entry.is_link and entry not in {links.get(entry.path), self.known.get(entry.path)}
        }


def _entry(link: SubmoduleLink) -> IndexEntry:
    return IndexEntry(link.path, b"160000", link.commit_id.encode())


def _is_inhabited(directory: bytes, changes: TreeChanges) -> bool:
    """True when a file below the directory is read; `read` is sorted."""
    within = directory + b"/"
    index = bisect_left(changes.read, within)
    return index < len(changes.read) and changes.read[index].startswith(within)
