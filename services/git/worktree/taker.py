"""Takes a working tree as a commit, whatever state its `.git` is in: in the sandbox, with a git directory of ours.

The outcome is a pack: mere data, which the result store checks object by object before it keeps any of it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.git.empty import EMPTY_COMMIT_ID
from services.git.gitcmd import Command, Git, GitFailed
from services.git.model import Caveat, TakeSpec, WorkingTree
from services.git.names import is_commit_id
from services.git.worktree.changes import TreeListing, can_read_roots_attributes, read_upper
from services.git.worktree.lfs_contents import LfsContents, LfsPlace
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView
from services.git.worktree.scratch_repository import ScratchRepository, make_scratch
from services.git.worktree.staging import Staging
from services.sandbox.spec import MountAccess, Tier

_NO_LFS: Final = LfsContents()
# Their names all become arguments of one `find`.
_MAX_MOVED: Final = 500


@dataclass(frozen=True, slots=True)
class TakenResult:
    """A working tree as a commit and its pack; no pack when the tree is the base's and HEAD has no new commits.

    `lfs` is what it has in Git LFS and its base has not.
    """

    commit_id: str
    pack: Path | None
    agent_commits: int
    caveats: tuple[Caveat, ...]
    lfs: LfsContents = _NO_LFS


@dataclass(frozen=True, slots=True)
class Manner:
    """How to take a tree: whether the agent's own commits are kept, and which objects are not, by their ids, and why.

    Without `keep_commits` the agent's object store is not read. `dangling` are the submodules for which that is.
    """

    keep_commits: bool = True
    refused: Mapping[bytes, str] = field(default_factory=dict)
    dangling: frozenset[bytes] = frozenset()


class Taker:
    """Takes working trees. The caller makes and removes the `scratch` directories."""

    def __init__(self, host_git: Git, git: SandboxedGit, *, max_pack_bytes: int, max_lfs_bytes: int) -> None:
        self._host_git = host_git
        self._git = git
        self._max_pack_bytes = max_pack_bytes
        self._max_lfs_bytes = max_lfs_bytes

    async def take(self, spec: TakeSpec, borrowed: tuple[Path, ...], scratch: Path, manner: Manner) -> TakenResult:
        """Make the commit, and a pack of it in `scratch`.

        Args:
            spec: what to take.
            borrowed: object directories that hold the base.
            scratch: an empty directory.
            manner: how.

        Raises:
            DanglingLinks: the agent's own commits cannot be kept.
            GitError: git cannot read the tree, or the result is larger than allowed.
        """
        if spec.base_commit_id == EMPTY_COMMIT_ID and not spec.layered_on and await asyncio.to_thread(_is_bare, spec):
            return TakenResult(EMPTY_COMMIT_ID, None, 0, ())
        repository_dir = await make_scratch(self._host_git, scratch, borrowed, spec.leave_out)
        TreeView.share(repository_dir, spec.tree)
        # What the tree itself borrows is for the repositories of its submodules.
        tree = replace(spec.tree, read_only_paths=tuple(dict.fromkeys((*borrowed, *spec.tree.read_only_paths))))
        head = await self._agents_head(tree, spec, repository_dir) if manner.keep_commits else None
        parent = head or spec.base_commit_id
        view = TreeView.of(tree, MountAccess.READ_ONLY, scratch=repository_dir)
        repository = ScratchRepository(self._git, view, spec, with_agents_objects=head is not None)
        place = LfsPlace(scratch, repository_dir, self._max_lfs_bytes)
        staging = Staging(self._git, view, repository, spec, parent, place)
        upper = await self._upper(view, spec, scratch)
        listing = upper or (await self._git.listing(view)).as_whole()
        staged = await staging.stage(listing, manner.refused, manner.dangling, is_read=upper is None)
        commit_id = await repository.commit_tree(parent)
        if commit_id == spec.base_commit_id:
            return TakenResult(commit_id, None, 0, staged.caveats)
        if not is_commit_id(commit_id):
            raise GitFailed("commit-tree", 0, f"git printed no commit id: {commit_id!r}")
        lfs = staged.lfs
        if head is not None and spec.git_lfs:
            lfs = await place.take_earlier(self._git, view, repository, f"{spec.base_commit_id}..{head}", lfs)
        pack = scratch / "result.pack"
        await repository.write_pack(commit_id, pack, self._max_pack_bytes)
        counted = Command("rev-list", ("--count",), (parent, f"^{spec.base_commit_id}"))
        return TakenResult(commit_id, pack, int(await repository.text(counted)), staged.caveats, lfs)

    async def _upper(self, view: TreeView, spec: TakeSpec, scratch: Path) -> TreeListing | None:
        """List what has changed according to the layers; return None when only reading every file tells."""
        layers = spec.tree.layers
        # Without a sandbox, an agent with our rights could have changed the upper directory behind the overlay's back.
        if layers is None or not spec.layered_on or spec.tree.tier is Tier.NONE:
            return None
        mounted_by_root = layers.mounted_path is not None
        if mounted_by_root and not can_read_roots_attributes(scratch):
            return None
        try:
            upper = await asyncio.to_thread(read_upper, layers.upper, mounted_by_root=mounted_by_root)
        except OSError:  # a directory that is closed to us, or too deep
            return None
        if len(upper.moved) > _MAX_MOVED:
            return None
        return upper.with_moved(await self._git.listing(view, upper.moved)) if upper.moved else upper

    async def _agents_head(self, tree: WorkingTree, spec: TakeSpec, repository_dir: Path) -> str | None:
        """Return the commit that the agent left HEAD at; None unless it descends from the base and differs from it.

        From a base of nothing every commit does.
        """
        command = Command("rev-parse", ("--verify", "--quiet"), ("HEAD^{commit}",))
        alone = TreeView.of(tree, MountAccess.READ_ONLY)
        answer = await self._git.run(alone, command, SandboxedInvocation(expected_codes=(0, 1, 128)))
        head = answer.line.decode("ascii", "replace")
        if answer.code != 0 or not is_commit_id(head) or head == spec.base_commit_id:
            return None
        view = TreeView.of(tree, MountAccess.READ_ONLY, scratch=repository_dir)
        repository = ScratchRepository(self._git, view, spec, with_agents_objects=True)
        descends = Command("merge-base", ("--is-ancestor",), (spec.base_commit_id, head))
        return head if spec.base_commit_id == EMPTY_COMMIT_ID or await repository.holds(descends) else None


def _is_bare(spec: TakeSpec) -> bool:
    """True when a tree that began without files has none, without asking git."""
    layers = spec.tree.layers
    if layers is not None and layers.lowers:
        return False
    try:
        return {path.name for path in (layers.upper if layers else spec.tree.path).iterdir()} <= {".boatyard"}
    except OSError:  # it is closed to us: git says more about it
        return False
