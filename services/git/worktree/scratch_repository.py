"""A git directory of ours beside a working tree: whatever an agent did to the tree's own `.git` does not affect it.

Git runs in the sandbox on both, with an index built here from a commit of ours and from the files of the tree.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.git.gitcmd import Command, GitFailed
from services.git.model import TakeSpec
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView
from services.git.worktree.signatures import message_bytes, signature_variables
from services.git.worktree.upper import IndexEntry, UpperChanges
from services.sandbox.spec import Mount

_LINK: Final = b"160000 "
_FROM_LIST: Final = ("-z", "--stdin")


class ScratchRepository:
    """A bare repository for one attempt at taking a tree; git in the sandbox sees it beside the tree."""

    def __init__(
        self, git: SandboxedGit, view: TreeView, spec: TakeSpec, *, with_agents_objects: bool, index: str = "index"
    ) -> None:
        self._git = git
        self._view = view
        self._spec = spec
        self._with_agents_objects = with_agents_objects
        self._variables = {"GIT_INDEX_FILE": str(view.scratch / index)}
        if with_agents_objects:
            self._variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(view.tree / ".git" / "objects")

    async def text(self, command: Command, *, stdin: bytes = b"", variables: dict[str, str] | None = None) -> str:
        """Run a command, and return the one value that it prints."""
        completed = await self._git.run(self._view, command, self._invocation(stdin=stdin, variables=variables))
        return completed.line.decode("ascii", "replace")

    async def holds(self, command: Command) -> bool:
        """Run a command that answers by its exit code; True when that is 0."""
        return (await self._git.run(self._view, command, self._invocation(expected_codes=(0, 1, 128)))).code == 0

    def hiding(self, mounts: tuple[Mount, ...]) -> "ScratchRepository":
        """Return the same repository, with something mounted over parts of the tree."""
        view = self._view.hiding(mounts)
        return ScratchRepository(self._git, view, self._spec, with_agents_objects=self._with_agents_objects)

    def with_other_index(self) -> "ScratchRepository":
        """Return the same repository, with a second index."""
        with_objects = self._with_agents_objects
        return ScratchRepository(
            self._git, self._view, self._spec, with_agents_objects=with_objects, index="other-index"
        )

    async def read_commit(self, commit_id: str) -> None:
        """Fill the index with a commit's tree."""
        await self.text(Command("read-tree", (), (commit_id,)))

    async def entries(self, paths: tuple[bytes, ...] = ()) -> list[IndexEntry]:
        """List the index, or what of it lies at or below the paths."""
        command = Command("ls-files", ("-z", "--stage"), (), paths)
        listing = (await self._git.run(self._view, command, self._invocation())).stdout
        records = (record.partition(b"\t") for record in listing.split(b"\0") if record)
        return [
            IndexEntry(path, facts.removeprefix(_LINK).split(b" ")[0] if facts.startswith(_LINK) else b"")
            for facts, _, path in records
        ]

    async def links_among(self, nested: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return those of the nested repositories that the index has as links, without their content."""
        return tuple(sorted(entry.path for entry in await self.entries(nested) if entry.link)) if nested else ()

    async def stage_everything(self) -> None:
        """Bring the index to the working tree by reading every file of it."""
        staged = await self._git.run(self._view, Command("add", ("--all",)), self._invocation())
        # Git skips a directory that it may not read, and still reports success.
        if "Permission denied" in staged.stderr:
            raise GitFailed("add", staged.code, staged.stderr)

    async def stage(self, changes: UpperChanges) -> None:
        """Bring the index to the working tree by reading the changed files, even those that git would ignore."""
        if changes.removed:
            await self._update("--force-remove", paths=changes.removed)
        if changes.read:
            await self._update("--add", "--remove", paths=changes.read)

    async def ignored(self, paths: Iterable[bytes]) -> frozenset[bytes]:
        """Return those of the paths that git ignores. Paths in the index are not ignored."""
        # The one command without literal paths: a path that begins with a colon would be a pattern.
        stdin = _lines(b"./" + path for path in paths)
        if not stdin:
            return frozenset()
        invocation = self._invocation(stdin=stdin, variables={"GIT_LITERAL_PATHSPECS": "0"}, expected_codes=(0, 1))
        answer = await self._git.run(self._view, Command("check-ignore", _FROM_LIST), invocation)
        return frozenset(path.removeprefix(b"./") for path in answer.stdout.split(b"\0") if path)

    async def link(self, links: Iterable[IndexEntry]) -> None:
        """Put submodules into the index."""
        stdin = _lines(_LINK + entry.link + b"\t" + entry.path for entry in links)
        if stdin:
            await self.text(Command("update-index", ("-z", "--index-info")), stdin=stdin)

    async def unlink(self, paths: tuple[bytes, ...]) -> None:
        """Remove paths from the index, whether the tree has them or not."""
        if paths:
            await self._update("--force-remove", paths=paths)

    async def commit_tree(self, parent: str) -> str:
        """Commit the index on `parent`; return the parent itself when it has the same tree."""
        tree = await self.text(Command("write-tree"))
        if tree == await self.text(Command("rev-parse", ("--verify",), (f"{parent}^{{tree}}",))):
            return parent
        commit = Command("commit-tree", ("-p", parent, "-F", "-"), (tree,))
        spec = self._spec
        return await self.text(commit, stdin=message_bytes(spec.message), variables=signature_variables(spec.signature))

    async def write_pack(self, commit_id: str, pack: Path, limit: int) -> None:
        """Write a pack, of at most `limit` bytes, of all objects that the commit has and the base lacks."""
        revisions = f"{commit_id}\n^{self._spec.base_commit_id}\n".encode()
        command = Command("pack-objects", ("--revs", "--stdout", "-q"))
        invocation = replace(self._invocation(stdin=revisions), output_limit=limit)
        await self._git.write_output(self._view, command, pack, invocation)

    async def _update(self, *flags: str, paths: Iterable[bytes]) -> None:
        await self.text(Command("update-index", (*flags, *_FROM_LIST)), stdin=_lines(paths))

    def _invocation(
        self, *, stdin: bytes = b"", variables: dict[str, str] | None = None, expected_codes: tuple[int, ...] = (0,)
    ) -> SandboxedInvocation:
        return SandboxedInvocation(
            git_dir=self._view.scratch / "git",
            stdin=stdin,
            variables=self._variables | (variables or {}),
            expected_codes=expected_codes,
        )


def _lines(records: Iterable[bytes]) -> bytes:
    return b"".join(record + b"\0" for record in records)
