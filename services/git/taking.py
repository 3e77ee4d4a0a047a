"""Takes a working tree as a commit, whatever became of its `.git`: with a git directory of ours, in the sandbox.

What comes out is a pack: data, which the result store checks object by object before it keeps any of it.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.git.benches import Bench, Order
from services.git.changes import Changes, Entry, Upper, can_read_roots_attributes, compare, read_upper
from services.git.gitcmd import Command, Git, GitFailed
from services.git.model import WorkingTree
from services.git.names import is_commit_id
from services.git.ours import leave_ours_out
from services.git.sandboxed import How, SandboxedGit, View
from services.sandbox.spec import Mount, MountAccess, Tier

# A mount each: more of them are an accident, such as a package manager's cache that nothing ignores.
_MAX_HIDDEN: Final = 256
# Their names are arguments of one program.
_MAX_MOVED: Final = 500


@dataclass(frozen=True, slots=True)
class Taken:
    """What was found. `pack` is None when the tree is the base's and HEAD leads to nothing new."""

    commit_id: str
    pack: Path | None
    agent_commits: int
    lost_repositories: tuple[bytes, ...]


class Taker:
    """Takes working trees. `scratch` directories are the caller's to make and to remove."""

    def __init__(self, host_git: Git, git: SandboxedGit, empty: Path, *, max_pack_bytes: int) -> None:
        self._host_git = host_git
        self._git = git
        self._empty = empty
        self._max_pack_bytes = max_pack_bytes

    async def take(self, order: Order, borrowed: tuple[Path, ...], scratch: Path, *, keep_commits: bool) -> Taken:
        """Make the commit, and a pack of it in `scratch`.

        Args:
            order: what to take.
            borrowed: object directories that hold the base.
            scratch: an empty directory.
            keep_commits: whether the agent's own commits are wanted; without them its object store is not looked at.

        Raises:
            GitError: git cannot read the tree, or the result is larger than it may be.
        """
        bench = await self._prepare(scratch, borrowed)
        tree = replace(order.tree, read_only_paths=borrowed)
        head = await self._agents_head(tree, order, bench) if keep_commits else None
        parent = head or order.base_commit_id
        view = View.of(tree, MountAccess.READ_ONLY, bench=bench)
        looking = Bench(self._git, view, order, with_agents_objects=head is not None)
        upper = await self._what_changed(view, order, scratch)
        if upper is None:
            own, lost = await self._read_everything(looking, view, order, parent, scratch)
        else:
            own, lost = looking, await self._read_changes(looking, order, parent, upper)
        commit_id = await own.commit_tree(parent)
        if commit_id == order.base_commit_id:
            return Taken(commit_id, None, 0, lost)
        if not is_commit_id(commit_id):
            raise GitFailed("commit-tree", 0, f"no commit id came out: {commit_id!r}")
        pack = scratch / "result.pack"
        await own.write_pack(commit_id, pack, self._max_pack_bytes)
        counted = Command("rev-list", ("--count",), (parent, f"^{order.base_commit_id}"))
        return Taken(commit_id, pack, int(await own.text(counted)), lost)

    async def _what_changed(self, view: View, order: Order, scratch: Path) -> Upper | None:
        """Return what the layers tell of the changes; None where every file has to be read to know."""
        layers = order.tree.layers
        # Without a sandbox an agent with our rights could have changed the upper directory behind the overlay's back.
        if layers is None or not order.layered_on or order.tree.tier is Tier.NONE:
            return None
        mounted_by_root = layers.mounted_path is not None
        if mounted_by_root and not can_read_roots_attributes(scratch):
            return None
        try:
            upper = await asyncio.to_thread(read_upper, layers.upper, mounted_by_root=mounted_by_root)
        except OSError as error:
            raise GitFailed("add", 0, f"{os.fsdecode(error.filename or '')}: {error.strerror}") from error
        if len(upper.moved) > _MAX_MOVED:
            return None
        if not upper.moved:
            return upper
        files, directories = await self._git.below(view, upper.moved)
        directories = (*upper.directories, *upper.moved, *directories)
        return replace(upper, files=(*upper.files, *files), directories=directories)

    async def _read_changes(self, bench: Bench, order: Order, parent: str, upper: Upper) -> tuple[bytes, ...]:
        """Bring the index from the commit below the layers to the working tree; return what is lost of it."""
        await bench.read_commit(order.layered_on)
        below = await bench.entries()
        changes = compare(below, upper)
        known = {entry.path for entry in below}
        tracking, tracked = bench, below
        if parent != order.layered_on:
            tracking = bench.with_other_index()
            await tracking.read_commit(parent)
            tracked = await tracking.entries()
        ignored = await tracking.ignored(path for path in changes.read if path not in known)
        kept = tuple(path for path in changes.read if path not in ignored)
        await bench.stage(replace(changes, read=kept))
        await bench.link(_links(tracked, {entry.path: entry for entry in below}, changes, upper))
        return changes.lost

    async def _read_everything(
        self, looking: Bench, view: View, order: Order, parent: str, scratch: Path
    ) -> tuple[Bench, tuple[bytes, ...]]:
        nested = await self._git.nested_repositories(view)
        submodules = await _start_from(looking, order.base_commit_id, parent, tuple(nested))
        own = looking.hiding(self._hidden(view, nested, submodules, scratch))
        await own.stage_everything()
        return own, tuple(sorted({*submodules, *await own.links_among(tuple(nested))}))

    async def _prepare(self, scratch: Path, borrowed: tuple[Path, ...]) -> Path:
        bench = scratch / "bench"
        bench.mkdir()
        git_dir = bench / "git"
        await self._host_git.run(Command("init", ("--quiet", "--bare", "--template="), (str(git_dir),)))
        leave_ours_out(git_dir)
        alternates = git_dir / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_bytes(b"".join(bytes(path) + b"\n" for path in borrowed))
        return bench

    async def _agents_head(self, tree: WorkingTree, order: Order, bench: Path) -> str | None:
        """Return the commit that the agent left HEAD at, where it descends from the base, and is not it."""
        command = Command("rev-parse", ("--verify", "--quiet"), ("HEAD^{commit}",))
        alone = View.of(tree, MountAccess.READ_ONLY)
        answer = await self._git.run(alone, command, How(expected_codes=(0, 1, 128)))
        head = answer.line.decode("ascii", "replace")
        if answer.code != 0 or not is_commit_id(head) or head == order.base_commit_id:
            return None
        beside = View.of(tree, MountAccess.READ_ONLY, bench=bench)
        looking = Bench(self._git, beside, order, with_agents_objects=True)
        descends = await looking.holds(Command("merge-base", ("--is-ancestor",), (order.base_commit_id, head)))
        return head if descends else None

    def _hidden(
        self, view: View, nested: Mapping[bytes, bool], submodules: tuple[bytes, ...], scratch: Path
    ) -> tuple[Mount, ...]:
        """Lay nothing over the `.git` of every nested repository: git then takes their files for what they are.

        Over submodules as a whole: without content they stay at the commit that they were at.
        """
        if len(nested) > _MAX_HIDDEN:
            raise GitFailed("add", 0, f"{len(nested)} repositories lie inside the tree; {_MAX_HIDDEN} can be taken")
        nothing = scratch / "nothing"
        nothing.touch()
        mounts = [Mount(self._empty, view.tree / os.fsdecode(path)) for path in submodules]
        for path, is_directory in nested.items():
            if not any(path == submodule or path.startswith(submodule + b"/") for submodule in submodules):
                dot_git = view.tree / os.fsdecode(path) / ".git"
                mounts.append(Mount(self._empty if is_directory else nothing, dot_git))
        return tuple(mounts)


async def _start_from(bench: Bench, base: str, parent: str, nested: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Fill the index with the parent's tree; return those of the nested repositories that are submodules of the base.

    Those that the agent has committed as links, which lead nowhere, are left out: their files can be added.
    """
    await bench.read_commit(base)
    submodules = await bench.links_among(nested)
    if parent != base:
        await bench.read_commit(parent)
        await bench.unlink(tuple(link for link in await bench.links_among(nested) if link not in submodules))
    return submodules


def _links(tracked: list[Entry], below: Mapping[bytes, Entry], changes: Changes, upper: Upper) -> list[Entry]:
    """Return the submodules that the agent has moved or added, as it committed them, where no files are in them."""
    directories, read = set(upper.directories), changes.read
    return [
        entry
        for entry in tracked
        if entry.link and below.get(entry.path) != entry and entry.path not in changes.removed
        if entry.path in below or entry.path in directories
        if not any(path.startswith(entry.path + b"/") for path in read)
    ]
