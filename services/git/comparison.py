"""Compares commits: with one another, and with where they left a branch of the remote."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from services.common.path_patterns import PathPatterns
from services.git import failures
from services.git.model import ChangedFile, ChangeKind, DiffEnd
from services.git.stores.commits import CommitStores
from services.git.stores.diffs import Diffs
from services.git.stores.mirrors import Mirrors


class Comparison:
    """Compares commits of the repositories that have been fetched."""

    def __init__(self, stores: CommitStores, mirrors: Mirrors, diffs: Diffs) -> None:
        self._stores = stores
        self._mirrors = mirrors
        self._diffs = diffs

    async def diff(
        self, repository_id: str, base: str | bytes, commit: str, max_bytes: int
    ) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield a diff in pieces of any size, then its end. See Diffs.diff.

        `base` is a commit id (str) or the name of a branch of the remote (bytes). For a branch, `commit` is compared
        with the commit where it left that branch.

        Raises:
            NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
        """
        base_id = await self.diff_base(repository_id, base, commit)
        store = await self._stores.store_with(repository_id, base_id, commit)
        async for piece in self._diffs.diff(store, base_id, commit, max_bytes):
            yield replace(piece, base_commit_id=base_id) if isinstance(piece, DiffEnd) else piece

    async def changed_files(
        self, repository_id: str, base: str | bytes, commit: str, patterns: Sequence[str] = ()
    ) -> list[ChangedFile]:
        """List the files that differ, by path. `base` and the errors are those of `diff`.

        With patterns: those that any of them names, by their path or their previous one, and of files that do not
        differ those that a commit between the two changes, as a push would bring that commit along. If the base is on
        no branch and no tag of the remote, a push would bring what led to it too.
        """
        base_id = await self.diff_base(repository_id, base, commit)
        store = await self._stores.store_with(repository_id, base_id, commit)
        files = await self._diffs.changed_files(store, base_id, commit)
        if not patterns:
            return files
        touched = await self._diffs.touched_paths(store, base_id, commit)
        if await self._mirrors.revisions.has(repository_id, base_id):
            touched |= await self._diffs.touched_on_no_branch(self._mirrors.path(repository_id), base_id)
        return await asyncio.to_thread(_named, files, touched, PathPatterns(patterns))

    async def diff_base(self, repository_id: str, base: str | bytes, commit: str) -> str:
        """Return the commit to compare with. `base` and the errors are those of `diff`."""
        if isinstance(base, str):
            return base
        store = await self._stores.store_with(repository_id, commit)
        branch = await self._mirrors.revisions.resolve(repository_id, b"refs/heads/" + base)
        merge_base = None if branch is None else await self._diffs.merge_base(store, branch.commit_id, commit)
        if merge_base is None:
            raise failures.revision_not_found(base)
        return merge_base


def _named(files: list[ChangedFile], touched: set[bytes], patterns: PathPatterns) -> list[ChangedFile]:
    differing = {path for file in files for path in (file.path, file.old_path)}
    files = [*files, *(ChangedFile(path, ChangeKind.MODIFIED) for path in touched - differing)]
    named = [file for file in files if patterns.name(file.path) or (file.old_path and patterns.name(file.old_path))]
    return sorted(named, key=lambda file: file.path)
