"""A git directory of ours beside a working tree: whatever an agent did to the tree's own `.git` does not affect it.

Git runs in the sandbox on both, with an index built here from a commit of ours and from the files of the tree.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from services.git.empty import EMPTY_COMMIT_ID
from services.git.exclude import exclude_boatyard
from services.git.gitcmd import Command, Git, GitFailed
from services.git.model import TakeSpec
from services.git.pointers import POINTER_BYTES, Pointer, batch_contents, parse_pointer
from services.git.worktree.changes import IndexEntry, TreeChanges
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView, nul_ended
from services.git.worktree.signatures import message_bytes, signature_variables

# How many paths are looked for one by one that git does not take.
_MOST_REFUSED: Final = 100
# What git says of a path that it leaves out, with success.
_LEAVES_OUT: Final = "Ignoring path "
# What git says when it stops at a path, and when the fault is not that path's.
_OF_A_PATH: Final = "Unable to process path"
_NOT_STORED: Final = "failed to insert into database"
_OUTPUT_BYTES: Final = 64 << 20
_FROM_LIST: Final = ("-z", "--stdin")
_EMPTY_BLOB: Final = b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


async def make_scratch(git: Git, scratch: Path, borrowed: Iterable[Path], leave_out: Iterable[str] = ()) -> Path:
    """Make the directory that a view shows as its scratch: with a git directory that borrows objects.

    `leave_out` are patterns of files that it ignores.
    """
    repository_dir = scratch / "repository"
    repository_dir.mkdir()
    git_dir = repository_dir / "git"
    await git.run(Command("init", ("--quiet", "--bare", "--template="), (str(git_dir),)))
    exclude_boatyard(git_dir, leave_out)
    alternates = git_dir / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_bytes(b"".join(bytes(path) + b"\n" for path in borrowed))
    return repository_dir


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
        completed = await self._git.run(self._view, command, self.invocation(stdin=stdin, variables=variables))
        return completed.line.decode("ascii", "replace")

    async def holds(self, command: Command) -> bool:
        """Run a command that answers by its exit code; True when that is 0."""
        return (await self._git.run(self._view, command, self.invocation(expected_codes=(0, 1, 128)))).code == 0

    def with_other_index(self) -> "ScratchRepository":
        """Return the same repository, with a second index."""
        with_objects = self._with_agents_objects
        return ScratchRepository(
            self._git, self._view, self._spec, with_agents_objects=with_objects, index="other-index"
        )

    async def read_commit(self, commit_id: str) -> None:
        """Fill the index with a commit's tree."""
        await self.text(Command("read-tree", (), (commit_id,)))

    async def entries(self) -> list[IndexEntry]:
        """List the index."""
        listing = (await self._git.run(self._view, Command("ls-files", ("-z", "--stage")), self.invocation())).stdout
        records = (record.partition(b"\t") for record in listing.split(b"\0") if record)
        return [IndexEntry(path, *facts.split(b" ")[:2]) for facts, _, path in records]

    async def changes(self, commit_id: str) -> list[IndexEntry]:
        """List the files in the index that differ from a commit's, without those that are gone."""
        command = Command(
            "diff", ("--cached", "--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff"), (commit_id,)
        )
        fields = (await self._git.run(self._view, command, self.invocation())).stdout.split(b"\0")
        records = ((path, facts.split(b" ")) for facts, path in zip(fields[0::2], fields[1::2], strict=False))
        return [IndexEntry(path, mode, object_id) for path, (_, mode, _, object_id, kind) in records if kind != b"D"]

    async def stage(self, changes: TreeChanges) -> tuple[tuple[bytes, ...], str]:
        """Bring the index to the working tree by reading the changed files, even those that git would ignore.

        Returns the files that git does not take, and what it said of one of them.
        """
        if changes.removed:
            await self._update("--force-remove", paths=changes.removed)
        return await self._add(changes.read, [_MOST_REFUSED]) if changes.read else ((), "")

    async def _add(self, paths: tuple[bytes, ...], left: list[int]) -> tuple[tuple[bytes, ...], str]:
        """Add paths; where git stops at one of them, each half alone. `left`: how many more such paths to look for."""
        try:
            said = await self._update("--add", "--remove", paths=paths)
        except GitFailed as error:
            if _OF_A_PATH not in error.stderr or _NOT_STORED in error.stderr:
                raise
            if len(paths) == 1 or not left[0]:
                left[0] = max(0, left[0] - 1)
                return paths, error.stderr.partition("\n")[0].removeprefix("error: ")
            middle = len(paths) // 2
            first, why = await self._add(paths[:middle], left)
            second, also = await self._add(paths[middle:], left)
            return (*first, *second), why or also
        if _LEAVES_OUT not in said:
            return (), ""
        taken = {entry.path for entry in await self.entries()}
        return tuple(path for path in paths if path not in taken), "its name is one that git keeps for itself"

    async def restore(self, paths: Iterable[bytes], entries: Mapping[bytes, IndexEntry]) -> None:
        """Put paths of the index back to what they were: those without an entry are removed."""
        paths = tuple(paths)
        if gone := tuple(path for path in paths if path not in entries):
            await self._update("--force-remove", paths=gone)
        await self.put(entries[path] for path in paths if path in entries)

    async def put(self, entries: Iterable[IndexEntry]) -> None:
        """Put entries into the index."""
        stdin = nul_ended(entry.mode + b" " + entry.object_id + b"\t" + entry.path for entry in entries)
        if stdin:
            await self.text(Command("update-index", ("-z", "--index-info")), stdin=stdin)

    async def for_lfs(self, entries: Iterable[IndexEntry]) -> tuple[list[IndexEntry], frozenset[Pointer]]:
        """Return those of the files that .gitattributes gives to Git LFS and that are no pointers, and the pointers.

        An empty file is its own pointer.
        """
        files = {entry.path: entry for entry in entries if entry.is_file and entry.object_id != _EMPTY_BLOB}
        if not files:
            return [], frozenset()
        command = Command("check-attr", ("-z", "--stdin", "--cached"), ("filter",))
        answer = await self._git.run(self._view, command, self.invocation(stdin=nul_ended(files)))
        fields = answer.stdout.split(b"\0")
        chosen = [files[path] for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == b"lfs"]
        pointers = await self.pointers({entry.object_id for entry in chosen}) if chosen else {}
        return [entry for entry in chosen if entry.object_id not in pointers], frozenset(pointers.values())

    async def pointers(self, object_ids: Collection[bytes]) -> dict[bytes, Pointer]:
        """Return those of the objects that are pointers of Git LFS."""
        asked = b"".join(object_id + b"\n" for object_id in object_ids)
        sizes = Command("cat-file", ("--batch-check=%(objectname) %(objectsize)",))
        listed = (await self._git.run(self._view, sizes, self.invocation(stdin=asked))).stdout.splitlines()
        small = [line.split()[0] for line in listed if int(line.split()[1]) <= POINTER_BYTES]
        if not small:
            return {}
        contents = Command("cat-file", ("--batch=%(objectsize)",))
        read = self.invocation(stdin=b"".join(object_id + b"\n" for object_id in small))
        answer = (await self._git.run(self._view, contents, read)).stdout
        both = zip(small, batch_contents(answer), strict=True)
        return {object_id: pointer for object_id, content in both if (pointer := parse_pointer(content)) is not None}

    async def ignored(self, paths: Iterable[bytes]) -> frozenset[bytes]:
        """Return those of the paths that git ignores. Paths in the index are not ignored."""
        # The one command without literal paths: a path that begins with a colon would be a pattern.
        stdin = nul_ended(b"./" + path for path in paths)
        if not stdin:
            return frozenset()
        invocation = self.invocation(stdin=stdin, variables={"GIT_LITERAL_PATHSPECS": "0"}, expected_codes=(0, 1))
        answer = await self._git.run(self._view, Command("check-ignore", _FROM_LIST), invocation)
        return frozenset(path.removeprefix(b"./") for path in answer.stdout.split(b"\0") if path)

    async def commit_tree(self, parent: str) -> str:
        """Commit the index on `parent`, or on nothing; return the parent itself when it has the same tree."""
        tree = await self.text(Command("write-tree"))
        if tree == await self.text(Command("rev-parse", ("--verify",), (f"{parent}^{{tree}}",))):
            return parent
        parents = () if parent == EMPTY_COMMIT_ID else ("-p", parent)
        commit = Command("commit-tree", (*parents, "-F", "-"), (tree,))
        spec = self._spec
        return await self.text(commit, stdin=message_bytes(spec.message), variables=signature_variables(spec.signature))

    async def write_pack(self, commit_id: str, pack: Path, limit: int) -> None:
        """Write a pack, of at most `limit` bytes, of all objects that the commit has and the base lacks."""
        revisions = f"{commit_id}\n^{self._spec.base_commit_id}\n".encode()
        command = Command("pack-objects", ("--revs", "--stdout", "-q"))
        invocation = self.invocation(stdin=revisions, output_limit=limit)
        await self._git.write_output(self._view, command, pack, invocation)

    async def _update(self, *flags: str, paths: Iterable[bytes]) -> str:
        """Bring paths of the index up to date; return what git said."""
        command = Command("update-index", (*flags, *_FROM_LIST))
        return (await self._git.run(self._view, command, self.invocation(stdin=nul_ended(paths)))).stderr

    def invocation(
        self,
        *,
        stdin: bytes = b"",
        variables: dict[str, str] | None = None,
        expected_codes: tuple[int, ...] = (0,),
        output_limit: int = _OUTPUT_BYTES,
    ) -> SandboxedInvocation:
        """Return how git is run on this repository and the tree."""
        return SandboxedInvocation(
            git_dir=self._view.scratch / "git",
            stdin=stdin,
            variables=self._variables | (variables or {}),
            expected_codes=expected_codes,
            output_limit=output_limit,
        )
