"""The difference between a working tree and its HEAD, new files included. Git reads the tree in the sandbox."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

from services.git import failures
from services.git.gitcmd import Command, Git, GitError, OutputTooLarge
from services.git.model import DiffEnd, Signature, TakeSpec, WorkingTree
from services.git.paths import GitPaths
from services.git.stores.diffs import FILE_START, UNIFIED_FLAGS, whole_files
from services.git.worktree.changes import TreeChanges
from services.git.worktree.sandboxed import SandboxedGit, TreeView
from services.git.worktree.scratch_repository import ScratchRepository, make_scratch
from services.git.worktree.trees import WorkingTrees
from services.sandbox.spec import MountAccess

# What HEAD without a commit is compared with: git knows this tree without having it.
_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_MOST_BYTES: Final = 1 << 30
_CHUNK: Final = 64 * 1024
_NOBODY: Final = Signature("nobody", "nobody@localhost", 0)


class TreeDiffs:
    """Compares trees with an index of ours: the tree's own, and its objects, are only read."""

    def __init__(self, host_git: Git, git: SandboxedGit, trees: WorkingTrees, paths: GitPaths) -> None:
        self._host_git = host_git
        self._git = git
        self._trees = trees
        self._paths = paths

    async def diff(self, tree: WorkingTree, max_bytes: int) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield the unified diff in pieces, then its end. `max_bytes` is that of Diffs.diff.

        Raises:
            FailedPrecondition: NOT_A_REPOSITORY, RESULT_TOO_LARGE, and what WorkingTrees.status raises.
        """
        scratch = self._paths.scratch()
        try:
            head = (await self._trees.head(tree)).commit_id
            written = scratch / "diff"
            try:
                await self._write(tree, head, scratch, written)
            except OutputTooLarge as error:
                raise failures.result_too_large("diff", error) from error
            except GitError as error:
                raise failures.not_a_repository(str(tree.path), error) from error
            shown, chunks = 0, _chunks(written)
            async for part in whole_files(chunks, max_bytes) if max_bytes else chunks:
                shown += 1
                yield part
            yield DiffEnd(await asyncio.to_thread(_count_files, written) - shown if max_bytes else 0, head)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _write(self, tree: WorkingTree, head: str, scratch: Path, target: Path) -> None:
        entries = await self._trees.status(tree)
        repository_dir = await make_scratch(self._host_git, scratch, tree.read_only_paths)
        TreeView.share(repository_dir, tree)
        view = TreeView.of(tree, MountAccess.READ_ONLY, scratch=repository_dir)
        spec = TakeSpec(tree, head, "", _NOBODY)
        repository = ScratchRepository(self._git, view, spec, with_agents_objects=True)
        if head:
            await repository.read_commit(head)
        paths = sorted({path for entry in entries for path in (entry.path, entry.old_path) if path})
        await repository.stage(TreeChanges((), tuple(paths), ()))
        compare = Command("diff", ("--cached", *UNIFIED_FLAGS), (head or _EMPTY_TREE,))
        await self._git.write_output(view, compare, target, repository.invocation(output_limit=_MOST_BYTES))


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


def _count_files(path: Path) -> int:
    with path.open("rb") as file:
        return sum(line.startswith(FILE_START) for line in file)
