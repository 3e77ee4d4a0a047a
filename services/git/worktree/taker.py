"""Takes a working tree as a commit, whatever state its `.git` is in: in the sandbox, with a git directory of ours.

The outcome is a pack: mere data, which the result store checks object by object before it keeps any of it.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.git.empty import EMPTY_COMMIT_ID
from services.git.exclude import exclude_boatyard
from services.git.gitcmd import Command, Git, GitFailed
from services.git.model import TakeSpec, WorkingTree
from services.git.names import is_commit_id
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView
from services.git.worktree.scratch_repository import ScratchRepository
from services.git.worktree.size import shown
from services.git.worktree.upper import (
    IndexEntry,
    UpperChanges,
    UpperListing,
    can_read_roots_attributes,
    compare,
    read_upper,
)
from services.sandbox.spec import Mount, MountAccess, Tier

# Each needs a mount. More are an accident, such as a package manager's cache that nothing ignores.
_MAX_HIDDEN: Final = 256
# Their names all become arguments of one `find`.
_MAX_MOVED: Final = 500


@dataclass(frozen=True, slots=True)
class TakenResult:
    """A working tree as a commit and its pack; no pack when the tree is the base's and HEAD has no new commits."""

    commit_id: str
    pack: Path | None
    agent_commits: int
    lost_repositories: tuple[bytes, ...]


class Taker:
    """Takes working trees. The caller makes and removes the `scratch` directories."""

    def __init__(self, host_git: Git, git: SandboxedGit, empty: Path, *, max_pack_bytes: int) -> None:
        self._host_git = host_git
        self._git = git
        self._empty = empty
        self._max_pack_bytes = max_pack_bytes

    async def take(
        self, spec: TakeSpec, borrowed: tuple[Path, ...], scratch: Path, *, keep_commits: bool
    ) -> TakenResult:
        """Make the commit, and a pack of it in `scratch`.

        Args:
            spec: what to take.
            borrowed: object directories that hold the base.
            scratch: an empty directory.
            keep_commits: whether to keep the agent's own commits; if not, its object store is not read.

        Raises:
            GitError: git cannot read the tree, or the result is larger than allowed.
        """
        if spec.base_commit_id == EMPTY_COMMIT_ID and not spec.layered_on and await asyncio.to_thread(_is_bare, spec):
            return TakenResult(EMPTY_COMMIT_ID, None, 0, ())
        repository_dir = await self._prepare(scratch, borrowed, spec.leave_out)
        TreeView.share(repository_dir, spec.tree)
        tree = replace(spec.tree, read_only_paths=borrowed)
        head = await self._agents_head(tree, spec, repository_dir) if keep_commits else None
        parent = head or spec.base_commit_id
        view = TreeView.of(tree, MountAccess.READ_ONLY, scratch=repository_dir)
        repository = ScratchRepository(self._git, view, spec, with_agents_objects=head is not None)
        upper = await self._what_changed(view, spec, scratch)
        if upper is None:
            repository, lost = await self._read_everything(repository, view, spec, parent, scratch)
        else:
            lost = await self._read_changes(repository, spec, parent, upper)
        commit_id = await repository.commit_tree(parent)
        if commit_id == spec.base_commit_id:
            return TakenResult(commit_id, None, 0, lost)
        if not is_commit_id(commit_id):
            raise GitFailed("commit-tree", 0, f"git printed no commit id: {commit_id!r}")
        pack = scratch / "result.pack"
        await repository.write_pack(commit_id, pack, self._max_pack_bytes)
        counted = Command("rev-list", ("--count",), (parent, f"^{spec.base_commit_id}"))
        return TakenResult(commit_id, pack, int(await repository.text(counted)), lost)

    async def _what_changed(self, view: TreeView, spec: TakeSpec, scratch: Path) -> UpperListing | None:
        """Return the changes according to the layers; None when only reading every file tells."""
        layers = spec.tree.layers
        # Without a sandbox, an agent with our rights could have changed the upper directory behind the overlay's back.
        if layers is None or not spec.layered_on or spec.tree.tier is Tier.NONE:
            return None
        mounted_by_root = layers.mounted_path is not None
        if mounted_by_root and not can_read_roots_attributes(scratch):
            return None
        try:
            upper = await asyncio.to_thread(read_upper, layers.upper, mounted_by_root=mounted_by_root)
        except OSError as error:
            inside = os.fsencode(error.filename or b"").removeprefix(os.fsencode(layers.upper) + b"/")
            raise GitFailed("add", 0, f"{shown(inside)}: {error.strerror}") from error
        if len(upper.moved) > _MAX_MOVED:
            return None
        if not upper.moved:
            return upper
        files, directories = await self._git.below(view, upper.moved)
        directories = (*upper.directories, *upper.moved, *directories)
        return replace(upper, files=(*upper.files, *files), directories=directories)

    async def _read_changes(
        self, repository: ScratchRepository, spec: TakeSpec, parent: str, upper: UpperListing
    ) -> tuple[bytes, ...]:
        """Bring the index from the commit below the layers to the tree; return the submodules that lose content."""
        await repository.read_commit(spec.layered_on)
        below = await repository.entries()
        changes = compare(below, upper)
        known = {entry.path for entry in below}
        # What is tracked is never ignored, and the agent's own commits say what is tracked now.
        tracking, tracked = repository, below
        if parent != spec.layered_on:
            tracking = repository.with_other_index()
            await tracking.read_commit(parent)
            tracked = await tracking.entries()
        ignored = await tracking.ignored(path for path in changes.read if path not in known)
        kept = tuple(path for path in changes.read if path not in ignored)
        await repository.stage(replace(changes, read=kept))
        await repository.link(_links(tracked, {entry.path: entry for entry in below}, changes, upper))
        return changes.lost

    async def _read_everything(
        self, repository: ScratchRepository, view: TreeView, spec: TakeSpec, parent: str, scratch: Path
    ) -> tuple[ScratchRepository, tuple[bytes, ...]]:
        nested = await self._git.nested_repositories(view)
        submodules = await _start_from(repository, spec.base_commit_id, parent, tuple(nested))
        covered = repository.hiding(self._hidden(view, nested, submodules, scratch))
        await covered.stage_everything()
        return covered, tuple(sorted({*submodules, *await covered.links_among(tuple(nested))}))

    async def _prepare(self, scratch: Path, borrowed: tuple[Path, ...], leave_out: tuple[str, ...]) -> Path:
        repository_dir = scratch / "repository"
        repository_dir.mkdir()
        git_dir = repository_dir / "git"
        await self._host_git.run(Command("init", ("--quiet", "--bare", "--template="), (str(git_dir),)))
        exclude_boatyard(git_dir, leave_out)
        alternates = git_dir / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_bytes(b"".join(bytes(path) + b"\n" for path in borrowed))
        return repository_dir

    async def _agents_head(self, tree: WorkingTree, spec: TakeSpec, repository_dir: Path) -> str | None:
        """Return the commit that the agent left HEAD at; None unless it descends from the base and differs from it."""
        command = Command("rev-parse", ("--verify", "--quiet"), ("HEAD^{commit}",))
        alone = TreeView.of(tree, MountAccess.READ_ONLY)
        answer = await self._git.run(alone, command, SandboxedInvocation(expected_codes=(0, 1, 128)))
        head = answer.line.decode("ascii", "replace")
        if answer.code != 0 or not is_commit_id(head) or head == spec.base_commit_id:
            return None
        view = TreeView.of(tree, MountAccess.READ_ONLY, scratch=repository_dir)
        repository = ScratchRepository(self._git, view, spec, with_agents_objects=True)
        descends = await repository.holds(Command("merge-base", ("--is-ancestor",), (spec.base_commit_id, head)))
        return head if descends else None

    def _hidden(
        self, view: TreeView, nested: Mapping[bytes, bool], submodules: tuple[bytes, ...], scratch: Path
    ) -> tuple[Mount, ...]:
        """Return empty mounts over the `.git` of every nested repository, so that git sees its files as ordinary files.

        Submodules are covered as a whole: without content they stay at the commit that they were at.
        """
        if len(nested) > _MAX_HIDDEN:
            raise GitFailed(
                "add", 0, f"{len(nested)} repositories lie inside the tree; at most {_MAX_HIDDEN} can be taken"
            )
        nothing = scratch / "nothing"
        nothing.touch()
        mounts = [Mount(self._empty, view.tree / os.fsdecode(path)) for path in submodules]
        for path, is_directory in nested.items():
            if not any(path == submodule or path.startswith(submodule + b"/") for submodule in submodules):
                dot_git = view.tree / os.fsdecode(path) / ".git"
                mounts.append(Mount(self._empty if is_directory else nothing, dot_git))
        return tuple(mounts)


def _is_bare(spec: TakeSpec) -> bool:
    """True when a tree that began without files has none, without asking git."""
    layers = spec.tree.layers
    if layers is not None and layers.lowers:
        return False
    return {path.name for path in (layers.upper if layers else spec.tree.path).iterdir()} <= {".boatyard"}


async def _start_from(
    repository: ScratchRepository, base: str, parent: str, nested: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    """Fill the index with the parent's tree; return those of the nested repositories that are submodules of the base.

    Nested repositories that the agent committed as links are removed from the index, because such links lead nowhere;
    their files can then be added.
    """
    await repository.read_commit(base)
    submodules = await repository.links_among(nested)
    if parent != base:
        await repository.read_commit(parent)
        await repository.unlink(tuple(link for link in await repository.links_among(nested) if link not in submodules))
    return submodules


def _links(
    tracked: list[IndexEntry], below: Mapping[bytes, IndexEntry], changes: UpperChanges, upper: UpperListing
) -> list[IndexEntry]:
    """Return the empty submodules that the agent added or moved to another commit, as it committed them.

    Where the commit below has a file in place of a submodule, the file is what the tree has.
    """
    directories, read = set(upper.directories), changes.read
    return [
        entry
        for entry in tracked
        if entry.link and below.get(entry.path) != entry and entry.path not in changes.removed
        if entry.path in directories or (entry.path in below and below[entry.path].link)
        if not any(path.startswith(entry.path + b"/") for path in read)
    ]
