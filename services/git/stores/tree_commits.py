"""Brings a commit of a working tree's own repository into the result store, from which it can be pushed."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from services.common.lock import LockHeldError
from services.git import failures
from services.git.gitcmd import Command, Git, GitError, GitFailed, Invocation, OutputTooLarge
from services.git.gitcmd.commands import STRICT_FLAG
from services.git.model import WorkingTree
from services.git.names import is_commit_id
from services.git.paths import GitPaths
from services.git.stores.repository import StoreLimits, locked, remove_stale_locks
from services.git.stores.results import ResultStores
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView
from services.sandbox.spec import MountAccess

# How far back to look for what the store has already. A pack is never larger than a result may be.
_LOOKED_AT: Final = 10_000


class TreeCommits:
    """Copies commits out of trees that an agent may have written: in the sandbox, as a pack that is checked.

    No ref names what was brought: a store keeps for hours what nothing names.
    """

    def __init__(
        self,
        host_git: Git,
        git: SandboxedGit,
        results: ResultStores,
        paths: GitPaths,
        *,
        limits: StoreLimits,
        max_pack_bytes: int,
    ) -> None:
        self._host_git = host_git
        self._git = git
        self._results = results
        self._paths = paths
        self._limits = limits
        self._max_pack_bytes = max_pack_bytes

    async def bring(self, repository_id: str, tree: WorkingTree, commit_id: str) -> None:
        """Make sure that the repository's result store has a commit of a tree.

        Raises:
            NotFound: REVISION_NOT_FOUND, the tree's repository has no such commit either.
            FailedPrecondition: TAKE_FAILED, RESULT_TOO_LARGE.
            Exhausted: DISK_FULL, REPOSITORY_BUSY.
            SandboxUnavailableError, HeldError: as SandboxedGit.run.
        """
        if await self._results.has(repository_id, commit_id):
            return
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        history = await self._history(view, commit_id)
        self._paths.check_room(self._limits.min_free_bytes)
        scratch = self._paths.scratch()
        try:
            known = await self._known(repository_id, history, scratch / "asked")
            wanted = "".join((f"{commit_id}\n", *(f"^{each}\n" for each in known))).encode()
            packing = SandboxedInvocation(stdin=wanted, output_limit=self._max_pack_bytes)
            command = Command("pack-objects", ("--revs", "--stdout", "-q"))
            await self._git.write_output(view, command, scratch / "pack", packing)
            store = await self._results.store(repository_id)
            async with locked(self._paths.result_lock(repository_id), self._limits.lock_seconds) as lock_fd:
                remove_stale_locks(store)
                checked = Invocation(
                    git_dir=store, stdin_file=scratch / "pack", timeout_seconds=1800, inherited_fds=(lock_fd,)
                )
                await self._host_git.run(Command("index-pack", ("--stdin", STRICT_FLAG)), checked)
        except OutputTooLarge as error:
            raise failures.result_too_large(commit_id, error) from error
        except GitError as error:
            raise failures.take_failed(commit_id, error, self._paths.root) from error
        except LockHeldError as error:
            raise failures.repository_busy(repository_id) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _history(self, view: TreeView, commit_id: str) -> list[str]:
        listing = Command("rev-list", (f"--max-count={_LOOKED_AT}",), (commit_id,))
        try:
            printed = (await self._git.run(view, listing)).stdout
        except GitFailed as error:
            raise failures.revision_not_found(commit_id) from error
        return [line for line in printed.decode("ascii", "replace").split() if is_commit_id(line)]

    async def _known(self, repository_id: str, commit_ids: list[str], asked: Path) -> list[str]:
        """Return those of the commits that the store has; `asked` is a file to write."""
        await asyncio.to_thread(asked.write_text, "".join(f"{each}\n" for each in commit_ids))
        looking = Invocation(git_dir=await self._results.store(repository_id), stdin_file=asked)
        answer = await self._host_git.run(Command("cat-file", ("--batch-check=%(objectname)",)), looking)
        return [line for line in answer.stdout.decode("ascii", "replace").split("\n") if is_commit_id(line)]
