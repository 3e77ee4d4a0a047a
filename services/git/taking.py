"""Takes a working tree as a commit, whatever became of its `.git`: with a git directory of ours, in the sandbox.

What comes out is a pack: data, which the result store checks object by object before it keeps any of it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.sandbox.spec import Access, Mount
from services.git.gitcmd import Command, Git, GitFailed
from services.git.model import Signature, WorkingTree
from services.git.names import is_commit_id
from services.git.sandboxed import How, SandboxedGit, View
from services.git.signing import message_bytes, signature_variables

# A mount each: more of them are an accident, such as a package manager's cache that nothing ignores.
_MAX_HIDDEN: Final = 256


@dataclass(frozen=True, slots=True)
class Taken:
    """What was found. `pack` is None when the tree is the base's and HEAD leads to nothing new."""

    commit_id: str
    pack: Path | None
    agent_commits: int
    lost_repositories: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What to take: the tree, the commit that it started from, and who signs what is added."""

    tree: WorkingTree
    base_commit_id: str
    message: str
    signature: Signature


class _Bench:
    """One attempt: a bare repository in a directory of ours, seen by git inside the sandbox beside the tree."""

    def __init__(self, git: SandboxedGit, view: View, order: Order, *, with_agents_objects: bool) -> None:
        self._git = git
        self._view = view
        self._order = order
        self._variables: dict[str, str] = {}
        if with_agents_objects:
            self._variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(view.tree / ".git" / "objects")

    async def text(self, command: Command, *, stdin: bytes = b"", variables: dict[str, str] | None = None) -> str:
        completed = await self._git.run(self._view, command, self._how(stdin=stdin, variables=variables))
        return completed.line.decode("ascii", "replace")

    async def holds(self, command: Command) -> bool:
        return (await self._git.run(self._view, command, self._how(expected_codes=(0, 1, 128)))).code == 0

    def hiding(self, mounts: tuple[Mount, ...]) -> "_Bench":
        """The same bench, with something mounted over parts of the tree."""
        return _Bench(self._git, self._view.hiding(mounts), self._order, with_agents_objects=bool(self._variables))

    async def start_from(self, parent: str, nested: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Fill the index with a commit's tree; return those of the nested repositories that are submodules of the base.

        Those that the agent has committed as links, which lead nowhere, are left out: their files can be added.
        """
        await self.text(Command("read-tree", (), (self._order.base_commit_id,)))
        submodules = await self.links_among(nested)
        if parent != self._order.base_commit_id:
            await self.text(Command("read-tree", (), (parent,)))
            made = tuple(link for link in await self.links_among(nested) if link not in submodules)
            if made:
                await self.text(Command("update-index", ("--force-remove",), (), made))
        return submodules

    async def commit_tree(self, parent: str) -> str:
        """Return the commit of the working tree on `parent`: the parent itself where it has that tree already."""
        await self._stage_everything()
        tree = await self.text(Command("write-tree"))
        if tree == await self.text(Command("rev-parse", ("--verify",), (f"{parent}^{{tree}}",))):
            return parent
        commit = Command("commit-tree", ("-p", parent, "-F", "-"), (tree,))
        order = self._order
        return await self.text(
            commit, stdin=message_bytes(order.message), variables=signature_variables(order.signature)
        )

    async def _stage_everything(self) -> None:
        staged = await self._git.run(self._view, Command("add", ("--all",)), self._how())
        # Git leaves out a directory that it may not read, and calls that a success.
        if "Permission denied" in staged.stderr:
            raise GitFailed("add", staged.code, staged.stderr)

    async def links_among(self, nested: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return those of the nested repositories that stand in the index as a link, without their content."""
        if not nested:
            return ()
        command = Command("ls-files", ("-z", "--stage"), (), nested)
        listing = await self._git.run(self._view, command, self._how())
        records = (record.partition(b"\t") for record in listing.stdout.split(b"\0"))
        links = {path for facts, _, path in records if facts.startswith(b"160000 ")}
        return tuple(sorted(links))

    async def write_pack(self, commit_id: str, target: Path, limit: int) -> None:
        """Write all that the commit has and the base has not."""
        revisions = f"{commit_id}\n^{self._order.base_commit_id}\n".encode()
        command = Command("pack-objects", ("--revs", "--stdout", "-q"))
        how = self._how(stdin=revisions)
        limited = How(how.git_dir, how.stdin, how.variables, output_limit=limit, timeout_seconds=how.timeout_seconds)
        await self._git.write_output(self._view, command, target, limited)

    def _how(
        self, *, stdin: bytes = b"", variables: dict[str, str] | None = None, expected_codes: tuple[int, ...] = (0,)
    ) -> How:
        return How(
            git_dir=self._view.bench / "git",
            stdin=stdin,
            variables=self._variables | (variables or {}),
            expected_codes=expected_codes,
        )


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
        tree = WorkingTree(order.tree.path, borrowed, order.tree.tier)
        view = View.of(tree, Access.READ_ONLY, bench=bench)
        head = await self._agents_head(view, order) if keep_commits else None
        parent = head or order.base_commit_id
        looking = _Bench(self._git, view, order, with_agents_objects=head is not None)
        nested = await self._git.nested_repositories(view)
        submodules = await looking.start_from(parent, nested)
        own = looking.hiding(self._hidden(view, order.tree.path, nested, submodules, scratch))
        commit_id = await own.commit_tree(parent)
        lost = tuple(sorted({*submodules, *await own.links_among(nested)}))
        if commit_id == order.base_commit_id:
            return Taken(commit_id, None, 0, lost)
        if not is_commit_id(commit_id):
            raise GitFailed("commit-tree", 0, f"no commit id came out: {commit_id!r}")
        pack = scratch / "result.pack"
        await own.write_pack(commit_id, pack, self._max_pack_bytes)
        counted = Command("rev-list", ("--count",), (parent, f"^{order.base_commit_id}"))
        return Taken(commit_id, pack, int(await own.text(counted)), lost)

    async def _prepare(self, scratch: Path, borrowed: tuple[Path, ...]) -> Path:
        bench = scratch / "bench"
        bench.mkdir()
        git_dir = bench / "git"
        await self._host_git.run(Command("init", ("--quiet", "--bare", "--template="), (str(git_dir),)))
        alternates = git_dir / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_bytes(b"".join(bytes(path) + b"\n" for path in borrowed))
        return bench

    async def _agents_head(self, view: View, order: Order) -> str | None:
        """Return the commit that the agent left HEAD at, where it descends from the base, and is not it."""
        command = Command("rev-parse", ("--verify", "--quiet"), ("HEAD^{commit}",))
        answer = await self._git.run(view, command, How(expected_codes=(0, 1, 128)))
        head = answer.line.decode("ascii", "replace")
        if answer.code != 0 or not is_commit_id(head) or head == order.base_commit_id:
            return None
        looking = _Bench(self._git, view, order, with_agents_objects=True)
        descends = await looking.holds(Command("merge-base", ("--is-ancestor",), (order.base_commit_id, head)))
        return head if descends else None

    def _hidden(
        self, view: View, tree: Path, nested: tuple[bytes, ...], submodules: tuple[bytes, ...], scratch: Path
    ) -> tuple[Mount, ...]:
        """Lay nothing over the `.git` of every nested repository: git then takes their files for what they are.

        Over submodules as a whole: without content they stay at the commit that they were at.
        """
        if len(nested) > _MAX_HIDDEN:
            raise GitFailed("add", 0, f"{len(nested)} repositories lie inside the tree; {_MAX_HIDDEN} can be taken")
        nothing = scratch / "nothing"
        nothing.touch()
        mounts = [Mount(self._empty, view.tree / os.fsdecode(path)) for path in submodules]
        for path in nested:
            if not any(path == submodule or path.startswith(submodule + b"/") for submodule in submodules):
                dot_git = Path(os.fsdecode(path)) / ".git"
                mounts.append(Mount(self._empty if (tree / dot_git).is_dir() else nothing, view.tree / dot_git))
        return tuple(mounts)
