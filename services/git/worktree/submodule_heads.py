"""What an agent left of submodules, as its `.git` says: in the sandbox, and believed by nobody without another look."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from services.git.gitcmd import Command, GitError
from services.git.gitmodules import LISTING_BYTES, Module, is_path_in_a_tree, parse_modules
from services.git.model import WorkingTree
from services.git.names import is_commit_id
from services.git.worktree.left_out import within
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView
from services.sandbox.spec import MountAccess

_AT_ONCE: Final = 4
_MOST: Final = 200
_ANY_CODE: Final = (0, 1, 3, 128)
# What `git status` prints of a submodule that has untracked files, and no other change.
_UNTRACKED_WITHIN: Final = b"1 .M S..U "
_MOST_INNER: Final = 16


class SubmoduleHeads:
    """Asks the repositories of a working tree where they are. What git cannot answer is left out."""

    def __init__(self, git: SandboxedGit) -> None:
        self._git = git

    async def modules(self, tree: WorkingTree) -> dict[bytes, Module]:
        """Return what the `.gitmodules` of the tree says, by paths."""
        listing = Command("config", ("--list", "-z", "--file=.gitmodules"))
        answer = await self._answer(TreeView.of(tree, MountAccess.READ_ONLY), listing)
        found = parse_modules(answer)
        return {path: module for path, module in found.items() if is_path_in_a_tree(path)}

    async def checked_out(self, tree: WorkingTree, paths: Iterable[bytes]) -> dict[bytes, str]:
        """Return the commits at which submodules are checked out, by their paths."""
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        turns = asyncio.Semaphore(_AT_ONCE)
        asking = Command("rev-parse", ("--verify", "--quiet"), ("HEAD^{commit}",))

        async def ask(path: bytes) -> tuple[bytes, str]:
            async with turns:
                return path, (await self._answer(view.inside(path), asking)).strip().decode("ascii", "replace")

        answers = await asyncio.gather(*map(ask, sorted(paths)[:_MOST]))
        return {path: commit_id for path, commit_id in answers if is_commit_id(commit_id)}

    async def present(self, tree: WorkingTree, paths: Iterable[bytes]) -> set[bytes]:
        """Return those of the paths at which the tree has a directory."""
        starts = tuple(b"./" + path for path in sorted(paths)[:_MOST])
        if not starts:
            return set()
        only = (b"-maxdepth", b"0", b"-type", b"d", b"-printf", b"%p\\0")
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        return {found.removeprefix(b"./") for found in await self._git.find(view, only, starts)}

    async def linked(self, tree: WorkingTree, paths: Iterable[bytes]) -> dict[bytes, str]:
        """Return the commits to which the tree's HEAD links, by their paths."""
        asking = Command("ls-tree", ("-z",), ("HEAD", *sorted(paths)[:_MOST]))
        records = (await self._answer(TreeView.of(tree, MountAccess.READ_ONLY), asking)).split(b"\0")
        found = (record.partition(b"\t") for record in records if record.startswith(b"160000 "))
        return {path: facts.split(b" ")[2].decode("ascii", "replace") for facts, _, path in found}

    async def last_change(self, tree: WorkingTree, path: bytes) -> str:
        """Return the last commit in the history of the tree's HEAD that changed a path; empty if there is none."""
        asking = Command("rev-list", ("--max-count=1",), ("HEAD",), (path,))
        answer = await self._answer(TreeView.of(tree, MountAccess.READ_ONLY), asking)
        commit_id = answer.strip().decode("ascii", "replace")
        return commit_id if is_commit_id(commit_id) else ""

    async def _answer(self, view: TreeView, command: Command) -> bytes:
        try:
            invocation = SandboxedInvocation(expected_codes=_ANY_CODE, output_limit=LISTING_BYTES)
            answer = await self._git.run(view, command, invocation)
        except GitError:
            return b""
        return answer.stdout if answer.code == 0 else b""


async def is_clean(
    git: SandboxedGit, view: TreeView, commit_ids: Collection[bytes], leave_out: Sequence[str] = ()
) -> bool:
    """True when the repository of a view is at one of the commits, and nothing in it has changed.

    Untracked files that the `leave_out` patterns name, as they hold in there, are no change.
    """
    status = Command("status", ("--porcelain=v2", "-z", "--untracked-files=all", "--branch"))
    try:
        answer = await git.run(view, status, SandboxedInvocation(timeout_seconds=60))
        records = [record for record in answer.stdout.split(b"\0") if record]
        is_there = any(b"# branch.oid " + commit_id in records for commit_id in commit_ids)
        changes = [record for record in records if not record.startswith(b"# ")]
        return is_there and (not changes or await _are_left_out(git, view, changes, leave_out))
    except GitError:
        return False


async def _are_left_out(git: SandboxedGit, view: TreeView, changes: list[bytes], leave_out: Sequence[str]) -> bool:
    """True when changes, as `git status` prints them, are of untracked files alone that the patterns name."""
    inner = [record.split(b" ", 8) for record in changes if record.startswith(_UNTRACKED_WITHIN)]
    untracked = sum(record.startswith(b"? ") for record in changes)
    if not leave_out or len(inner) > _MOST_INNER or len(inner) + untracked < len(changes):
        return False
    if untracked:
        flags = ("-z", "--others", "--exclude-standard", *(f"--exclude={pattern}" for pattern in leave_out))
        if (await git.run(view, Command("ls-files", flags), SandboxedInvocation(timeout_seconds=60))).stdout:
            return False
    for *_, commit_id, path in inner:
        if not await is_clean(git, view.inside(path), {commit_id}, within(leave_out, path)):
            return False
    return True
