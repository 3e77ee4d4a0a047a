"""A git directory of ours beside a working tree: what an agent did to its own does not matter to it.

Git runs on both in the sandbox, with an index that is made here of a commit of ours and of what lies in the tree.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.git.changes import Changes, Entry
from services.git.gitcmd import Command, GitFailed
from services.git.model import Signature, WorkingTree
from services.git.sandboxed import How, SandboxedGit, View
from services.git.signing import message_bytes, signature_variables
from services.sandbox.spec import Mount

_LINK: Final = b"160000 "
_FROM_LIST: Final = ("-z", "--stdin")


@dataclass(frozen=True, slots=True)
class Order:
    """What to take: the tree, the commit that it started from, and who signs what is added.

    `layered_on` is the commit whose tree lies below the layers of the tree; empty where that is not known, or there
    are no layers.
    """

    tree: WorkingTree
    base_commit_id: str
    message: str
    signature: Signature
    layered_on: str = ""


class Bench:
    """One attempt at taking a tree: a bare repository, seen by git inside the sandbox beside the tree."""

    def __init__(
        self, git: SandboxedGit, view: View, order: Order, *, with_agents_objects: bool, index: str = "index"
    ) -> None:
        self._git = git
        self._view = view
        self._order = order
        self._with_agents_objects = with_agents_objects
        self._variables = {"GIT_INDEX_FILE": str(view.bench / index)}
        if with_agents_objects:
            self._variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(view.tree / ".git" / "objects")

    async def text(self, command: Command, *, stdin: bytes = b"", variables: dict[str, str] | None = None) -> str:
        """Run a command that prints one value."""
        completed = await self._git.run(self._view, command, self._how(stdin=stdin, variables=variables))
        return completed.line.decode("ascii", "replace")

    async def holds(self, command: Command) -> bool:
        """Whether a command that answers by its exit code says yes."""
        return (await self._git.run(self._view, command, self._how(expected_codes=(0, 1, 128)))).code == 0

    def hiding(self, mounts: tuple[Mount, ...]) -> "Bench":
        """The same bench, with something mounted over parts of the tree."""
        view = self._view.hiding(mounts)
        return Bench(self._git, view, self._order, with_agents_objects=self._with_agents_objects)

    def with_other_index(self) -> "Bench":
        """The same bench, with a second index."""
        with_objects = self._with_agents_objects
        return Bench(self._git, self._view, self._order, with_agents_objects=with_objects, index="other-index")

    async def read_commit(self, commit_id: str) -> None:
        """Fill the index with a commit's tree."""
        await self.text(Command("read-tree", (), (commit_id,)))

    async def entries(self, paths: tuple[bytes, ...] = ()) -> list[Entry]:
        """List the index, or what of it lies at or below the paths."""
        command = Command("ls-files", ("-z", "--stage"), (), paths)
        listing = (await self._git.run(self._view, command, self._how())).stdout
        records = (record.partition(b"\t") for record in listing.split(b"\0") if record)
        return [
            Entry(path, facts.removeprefix(_LINK).split(b" ")[0] if facts.startswith(_LINK) else b"")
            for facts, _, path in records
        ]

    async def links_among(self, nested: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return those of the nested repositories that stand in the index as a link, without their content."""
        return tuple(sorted(entry.path for entry in await self.entries(nested) if entry.link)) if nested else ()

    async def stage_everything(self) -> None:
        """Bring the index to the working tree by reading every file of it."""
        staged = await self._git.run(self._view, Command("add", ("--all",)), self._how())
        # Git leaves out a directory that it may not read, and calls that a success.
        if "Permission denied" in staged.stderr:
            raise GitFailed("add", staged.code, staged.stderr)

    async def stage(self, changes: Changes) -> None:
        """Bring the index to the working tree by reading what has changed, whether git would ignore it or not."""
        if changes.removed:
            await self._update("--force-remove", paths=changes.removed)
        if changes.read:
            await self._update("--add", "--remove", paths=changes.read)

    async def ignored(self, paths: Iterable[bytes]) -> frozenset[bytes]:
        """Return those of the paths that git ignores: what the index holds is not ignored."""
        # The one command that knows no literal paths: a path that begins with a colon would be a pattern.
        stdin = _lines(b"./" + path for path in paths)
        if not stdin:
            return frozenset()
        how = self._how(stdin=stdin, variables={"GIT_LITERAL_PATHSPECS": "0"}, expected_codes=(0, 1))
        answer = await self._git.run(self._view, Command("check-ignore", _FROM_LIST), how)
        return frozenset(path.removeprefix(b"./") for path in answer.stdout.split(b"\0") if path)

    async def link(self, links: Iterable[Entry]) -> None:
        """Put submodules into the index."""
        stdin = _lines(_LINK + entry.link + b"\t" + entry.path for entry in links)
        if stdin:
            await self.text(Command("update-index", ("-z", "--index-info")), stdin=stdin)

    async def unlink(self, paths: tuple[bytes, ...]) -> None:
        """Take paths out of the index, whatever the tree has."""
        if paths:
            await self._update("--force-remove", paths=paths)

    async def commit_tree(self, parent: str) -> str:
        """Return the commit of the index on `parent`: the parent itself where it has that tree already."""
        tree = await self.text(Command("write-tree"))
        if tree == await self.text(Command("rev-parse", ("--verify",), (f"{parent}^{{tree}}",))):
            return parent
        commit = Command("commit-tree", ("-p", parent, "-F", "-"), (tree,))
        order = self._order
        return await self.text(
            commit, stdin=message_bytes(order.message), variables=signature_variables(order.signature)
        )

    async def write_pack(self, commit_id: str, pack: Path, limit: int) -> None:
        """Write all that the commit has and the base has not."""
        revisions = f"{commit_id}\n^{self._order.base_commit_id}\n".encode()
        command = Command("pack-objects", ("--revs", "--stdout", "-q"))
        how = replace(self._how(stdin=revisions), output_limit=limit)
        await self._git.write_output(self._view, command, pack, how)

    async def _update(self, *flags: str, paths: Iterable[bytes]) -> None:
        await self.text(Command("update-index", (*flags, *_FROM_LIST)), stdin=_lines(paths))

    def _how(
        self, *, stdin: bytes = b"", variables: dict[str, str] | None = None, expected_codes: tuple[int, ...] = (0,)
    ) -> How:
        return How(
            git_dir=self._view.bench / "git",
            stdin=stdin,
            variables=self._variables | (variables or {}),
            expected_codes=expected_codes,
        )


def _lines(records: Iterable[bytes]) -> bytes:
    return b"".join(record + b"\0" for record in records)
