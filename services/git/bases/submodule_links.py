"""Compares the submodules of a working tree with what it began with: where they are now, and what was done in them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.git import failures
from services.git.bases.submodules import Submodules
from services.git.gitcmd import GitError
from services.git.gitmodules import absolute_url, addresses
from services.git.model import Remote, SubmoduleLink, WorkingTree
from services.git.stores.module_files import ModuleFiles
from services.git.worktree.submodule_heads import SubmoduleHeads
from services.git.worktree.submodule_patches import SubmodulePatches, WrittenSubmodule

_MOST_WRITTEN: Final = 128


class SubmoduleLinks:
    """Compares the submodules of a working tree with those that it began with."""

    def __init__(
        self, files: ModuleFiles, submodules: Submodules, heads: SubmoduleHeads, patches: SubmodulePatches
    ) -> None:
        self._files = files
        self._submodules = submodules
        self._heads = heads
        self._patches = patches

    @staticmethod
    @contextlib.contextmanager
    def reading(name: str) -> Iterator[None]:
        """Read for a tree that is taken under a name. Raises FailedPrecondition (TAKE_FAILED) for a GitError."""
        try:
            yield
        except GitError as error:
            raise failures.take_failed(name, error) from error

    async def moved(
        self, store: Path, remote: Remote, tree: WorkingTree, commits: tuple[str, str, str], *, may_ask: bool
    ) -> tuple[SubmoduleLink, ...]:
        """Return the submodules of a tree that are at another commit, or at another path, than when it began.

        A submodule is where it is checked out. If that is where it was, or it is not checked out, it is what the agent
        committed: a merge or a checkout of another branch moves no submodule along. What HEAD linked to when the tree
        began is no commit of the agent's: HEAD of a tree of a snapshot does not have all that the tree has.

        Args:
            store: a repository that has the commits.
            remote: the repository.
            tree: the working tree.
            commits: the remote's commit that it goes back to, the one that it began with, and where HEAD began.
            may_ask: whether a submodule's remote is asked for a commit that its mirror lacks.

        Raises:
            GitError: a commit cannot be read.
        """
        base_commit_id, below, head = commits
        before = await self._files.links(store, below)
        if not before:
            return ()
        known = addresses(await self._files.modules(store, base_commit_id), remote.url)
        named = {**await self._files.modules(store, below), **await self._heads.modules(tree)}
        urls = {path: absolute_url(module.url, remote.url) or "" for path, module in named.items()}
        urls = {path: url if url in known else "" for path, url in urls.items()}
        checked_out = await self._heads.checked_out(tree, urls)
        began = await self._files.links(store, head)
        linked = {
            path: commit_id
            for path, commit_id in (await self._heads.linked(tree, urls)).items()
            if commit_id != began.get(path)
        }
        found = []
        for path, url in sorted(urls.items()):
            commit_id = checked_out.get(path, "")
            if commit_id in {"", before.get(path)}:
                commit_id = linked.get(path, commit_id)
            if commit_id in {"", before.get(path)}:
                continue
            is_published = await self._submodules.has(remote, url, commit_id, may_ask=may_ask)
            if not is_published and linked.get(path) == commit_id:
                is_published = await self._is_of_remote(remote, tree, path, commit_id)
            found.append(SubmoduleLink(path, commit_id, is_published))
        return tuple(found)

    async def written(
        self, store: Path, remote: Remote, tree: WorkingTree, commit_id: str, leave_out: tuple[str, ...] = ()
    ) -> list[WrittenSubmodule]:
        """Return the submodules of a tree in which something was done, nested ones too, outer ones first.

        Each is compared with the commit that it is checked out at if its repository is known to have that one; if not,
        with the one that `commit_id` links to. Untracked files that the `leave_out` patterns name are nothing.

        Raises:
            GitError: the commit cannot be read.
        """
        found: list[WrittenSubmodule] = []
        linked = await self._files.all_links(store, commit_id)
        named = await self._files.modules(store, commit_id)
        known = addresses(named, remote.url)
        named = {**named, **await self._heads.modules(tree)}
        urls = {path: absolute_url(module.url, remote.url) or "" for path, module in named.items()}
        moved = {path: (url, "") for path, url in urls.items() if url in known}
        waiting = moved | {path: (urls.get(path, ""), linked[path]) for path in linked}
        while waiting and len(found) < _MOST_WRITTEN:
            inner: dict[bytes, tuple[str, str]] = {}
            for path in sorted(await self._heads.present(tree, waiting)):
                url, before = waiting[path]
                mirror = self._submodules.mirror_at(remote, url)
                base = await self._compared_with(remote, tree, path, url, before)
                if await self._patches.is_untouched(tree, path, base or before, leave_out):
                    continue
                found.append(WrittenSubmodule(path, base, mirror / "objects" if base else None))
                inner |= await self._inside(mirror, path, url, base) if base else {}
            waiting = inner
        return found[:_MOST_WRITTEN]

    async def _inside(self, mirror: Path, path: bytes, url: str, commit_id: str) -> dict[bytes, tuple[str, str]]:
        """Return the URLs and the commits of the submodules of a submodule, by their paths from the top."""
        modules = await self._files.modules(mirror, commit_id)
        urls = {inner: absolute_url(module.url, url) or "" for inner, module in modules.items()}
        links = await self._files.all_links(mirror, commit_id)
        return {path + b"/" + inner: (urls.get(inner, ""), linked) for inner, linked in links.items()}

    async def _compared_with(self, remote: Remote, tree: WorkingTree, path: bytes, url: str, before: str) -> str:
        """Return the commit to compare a submodule with; empty when it could not be had."""
        checked_out = (await self._heads.checked_out(tree, [path])).get(path, before)
        for commit_id in dict.fromkeys((checked_out, before)):
            if commit_id and await self._submodules.has(remote, url, commit_id, may_ask=False):
                return commit_id
        return ""

    async def _is_of_remote(self, remote: Remote, tree: WorkingTree, path: bytes, commit_id: str) -> bool:
        """True when it is a commit of the remote that links to this one: the agent has merged it."""
        last = await self._heads.last_change(tree, path)
        mirror = self._submodules.mirror_of(remote)
        with contextlib.suppress(GitError):
            return bool(last) and (await self._files.links(mirror, last)).get(path) == commit_id
        return False
