"""Brings an index to a working tree: with all that git takes of it, and a caveat for whatever it does not."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.common.caveats import CaveatKind
from services.git.caveats import caveats_of
from services.git.model import Caveat, TakeSpec
from services.git.worktree.changes import IndexEntry, TreeListing, compare
from services.git.worktree.left_out import within
from services.git.worktree.lfs_contents import LfsContents, LfsPlace
from services.git.worktree.links import Links
from services.git.worktree.sandboxed import SandboxedGit, TreeView
from services.git.worktree.scratch_repository import ScratchRepository
from services.git.worktree.submodule_heads import is_clean

# Each costs a sandbox. Of more submodules it is not looked up whether their content is that of their commit.
_MOST_SUBMODULES: Final = 128
_PATH_BYTES: Final = 4095


@dataclass(frozen=True, slots=True)
class Staged:
    """In what an index differs from its working tree, and what of it is in Git LFS."""

    caveats: tuple[Caveat, ...]
    lfs: LfsContents


@dataclass(frozen=True, slots=True)
class Staging:
    """One working tree, and the repository whose index is brought to it. `parent` is what will be committed on."""

    git: SandboxedGit
    view: TreeView
    repository: ScratchRepository
    spec: TakeSpec
    parent: str
    lfs: LfsPlace

    async def stage(
        self,
        listing: TreeListing,
        refused: Mapping[bytes, str],
        told_before: frozenset[bytes] = frozenset(),
        *,
        is_read: bool = False,
    ) -> Staged:
        """Bring the index to the tree.

        Args:
            listing: the whole tree, or an upper directory with the content of what was moved.
            refused: objects that are not kept, by their ids, and why.
            told_before: submodules whose commits are not in the result, as the agent's own commits said.
            is_read: whether it was looked at in the sandbox what of the listing can be read.

        Raises:
            DanglingLinks: the agent's own commits cannot be kept.
            GitError: git cannot work on the tree at all.
        """
        below = self.spec.layered_on or self.spec.base_commit_id
        await self.repository.read_commit(below)
        entries = await self.repository.entries()
        known = {entry.path: entry for entry in entries}
        of_submodules = Links.of(known, self.spec.links, listing)
        changes = await asyncio.to_thread(compare, (*entries, *of_submodules.added), listing)
        tracking, tracked = await self._tracking(below, entries)
        committed = await self._without_begun(tracked)
        left_out = {
            CaveatKind.UNREADABLE: listing.unreadable,
            CaveatKind.PATH_TOO_LONG: listing.too_long,
            CaveatKind.SPECIAL_FILES: listing.special,
        }
        named = (path for paths in left_out.values() for path in paths)
        ignored = await tracking.ignored(
            _readable(path) for path in (*changes.read, *named) if path not in known and path
        )
        changes = replace(changes, read=tuple(path for path in changes.read if path not in ignored))
        untaken, why = await self.repository.stage(changes)
        if untaken and not is_read:
            whole = await self.git.listing(self.view)
            return await self.stage(listing.read_as(whole), refused, told_before, is_read=True)
        links = of_submodules.in_result(changes)
        await self.repository.put(entry for path, entry in links.items() if known.get(path) != entry)
        dangling = of_submodules.dangling(links, committed, changes, listing)
        of_submodules.refuse_commits(links, committed, dangling)
        dangling |= told_before
        changed = await self.repository.changes(self.spec.base_commit_id)
        unkept = {entry.path: refused[entry.object_id] for entry in changed if entry.object_id in refused}
        await self.repository.restore(unkept, known)
        raw, lfs = await self._pointed(entry for entry in changed if entry.path not in unkept)
        found = {
            **{kind: [each for each in paths if _readable(each) not in ignored] for kind, paths in left_out.items()},
            CaveatKind.REFUSED: (*untaken, *unkept),
            CaveatKind.SUBMODULE_CONTENT: await self._written(set(changes.submodules) - dangling, links, known),
            CaveatKind.SUBMODULE_COMMITS: dangling,
            CaveatKind.LFS_FILES: raw,
        }
        return Staged(caveats_of(found, {CaveatKind.REFUSED: next(iter(unkept.values()), why)}), lfs)

    async def _pointed(self, changed: Iterable[IndexEntry]) -> tuple[list[bytes], LfsContents]:
        """Put pointers in the place of files for Git LFS; return those that stay what they are, and what it has now."""
        raw, pointers = await self.repository.for_lfs(changed)
        if not raw or not self.spec.git_lfs:
            return [entry.path for entry in raw], LfsContents(pointers)
        files = await self.lfs.take(self.git, self.view, self.repository, raw)
        _, pointers = await self.repository.for_lfs(await self.repository.changes(self.spec.base_commit_id))
        return [], LfsContents(pointers, {pointer: files[pointer] for pointer in pointers & files.keys()})

    async def _tracking(self, below: str, entries: list[IndexEntry]) -> tuple[ScratchRepository, list[IndexEntry]]:
        """Return an index of what is tracked, which is never ignored: the agent's own commits say what that is now."""
        if self.parent == below:
            return self.repository, entries
        tracking = self.repository.with_other_index()
        await tracking.read_commit(self.parent)
        tracked = await tracking.entries()
        # Nested repositories that the agent committed as links are files, and git looks up nothing below a link.
        known = {entry.path for entry in entries if entry.is_link}
        await tracking.restore([entry.path for entry in tracked if entry.is_link and entry.path not in known], {})
        return tracking, tracked

    async def _without_begun(self, tracked: list[IndexEntry]) -> list[IndexEntry]:
        """Return what the agent's commits track, without what HEAD of a snapshot's tree tracked from its beginning."""
        head = self.spec.head_commit_id
        if not head or head == self.parent:
            return [] if head else tracked
        begun = self.repository.with_other_index()
        await begun.read_commit(head)
        return sorted({*tracked} - {*await begun.entries()}, key=lambda entry: entry.path)

    async def _written(
        self, submodules: Collection[bytes], links: Mapping[bytes, IndexEntry], known: Mapping[bytes, IndexEntry]
    ) -> list[bytes]:
        """Return those of the submodules whose content is not exactly that of their commit, before or now."""
        untouched = set()
        for path in sorted(submodules)[:_MOST_SUBMODULES]:
            commits = {entry.object_id for entry in (links[path], known.get(path)) if entry is not None}
            if await is_clean(self.git, self.view.inside(path), commits, within(self.spec.leave_out, path)):
                untouched.add(path)
        return [path for path in submodules if path not in untouched]


def _readable(path: bytes) -> bytes:
    """Return the path, or of one that is too long a directory above it: what git can look up."""
    return path if len(path) <= _PATH_BYTES else path[:_PATH_BYTES].rpartition(b"/")[0]
