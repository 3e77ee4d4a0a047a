"""Writes what was done inside a submodule as a patch: of its files as they are, whatever its `.git` has become."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.gitcmd import Command, Git
from services.git.model import Signature, TakeSpec, WorkingTree
from services.git.worktree.changes import compare
from services.git.worktree.left_out import within
from services.git.worktree.lfs_contents import LfsPlace
from services.git.worktree.sandboxed import SandboxedGit, TreeView
from services.git.worktree.scratch_repository import ScratchRepository, make_scratch
from services.git.worktree.submodule_heads import is_clean
from services.sandbox.spec import MountAccess

_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_DIFF: Final = ("--cached", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")
_NOBODY: Final = Signature("nobody", "nobody@localhost", 0)


@dataclass(frozen=True, slots=True)
class WrittenSubmodule:
    """A submodule in which something was done: its path, the commit to compare with (empty: no files), and objects."""

    path: bytes
    commit_id: str
    objects: Path | None


class SubmodulePatches:
    """Compares the files of submodules with a commit, in the sandbox."""

    def __init__(self, host_git: Git, git: SandboxedGit, max_lfs_bytes: int) -> None:
        self._host_git = host_git
        self._git = git
        self._max_lfs_bytes = max_lfs_bytes

    async def is_untouched(self, tree: WorkingTree, path: bytes, commit_id: str, leave_out: Iterable[str]) -> bool:
        """True when a submodule is checked out at a commit, and nothing in it has changed but what nobody wants."""
        view = TreeView.of(tree, MountAccess.READ_ONLY).inside(path)
        return await is_clean(self._git, view, {commit_id.encode()}, within(leave_out, path))

    async def write(self, tree: WorkingTree, submodule: WrittenSubmodule, target: Path, limit: int) -> None:
        """Write the patch, of at most `limit` bytes, to a new file; it is empty when no file differs.

        Raises:
            GitError: git cannot read the tree; OutputTooLarge.
        """
        scratch = target.with_name(f"{target.name}-scratch")
        scratch.mkdir()
        try:
            borrowed = (submodule.objects,) if submodule.objects else ()
            repository_dir = await make_scratch(self._host_git, scratch, borrowed)
            TreeView.share(repository_dir, tree)
            view = TreeView.of(tree, MountAccess.READ_ONLY, scratch=repository_dir).inside(submodule.path)
            repository = await self._staged(view, tree, submodule.commit_id)
            if submodule.commit_id:
                place = LfsPlace(scratch, repository_dir, self._max_lfs_bytes)
                await self._point_back(view, repository, submodule.commit_id, place)
            diff = Command("diff", _DIFF, (submodule.commit_id or _EMPTY_TREE,))
            await self._git.write_output(view, diff, target, repository.invocation(output_limit=limit))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _staged(self, view: TreeView, tree: WorkingTree, commit_id: str) -> ScratchRepository:
        spec = TakeSpec(tree, commit_id, "", _NOBODY)
        repository = ScratchRepository(self._git, view, spec, with_agents_objects=False)
        if commit_id:
            await repository.read_commit(commit_id)
        entries = await repository.entries()
        known = {entry.path for entry in entries}
        changes = compare(entries, (await self._git.listing(view)).as_whole())
        ignored = await repository.ignored(path for path in changes.read if path not in known)
        read = tuple(path for path in changes.read if path not in ignored)
        await repository.stage(type(changes)(changes.removed, read, changes.submodules))
        return repository

    async def _point_back(self, view: TreeView, repository: ScratchRepository, commit_id: str, place: LfsPlace) -> None:
        """Take contents that are those of the commit's pointers for no change; others stay whole in the patch."""
        raw, _ = await repository.for_lfs(await repository.changes(commit_id))
        if raw:
            await place.take(self._git, view, repository, raw)
            changed = {entry.path for entry in await repository.changes(commit_id)}
            await repository.put(entry for entry in raw if entry.path in changed)
