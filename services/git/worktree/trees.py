"""Everyday git in a working tree: branch, status, stage, commit. In the sandbox, as an agent may have written it."""

import asyncio
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from services.common.errors import FailedPrecondition
from services.git import failures
from services.git.empty import EMPTY_COMMIT_ID
from services.git.exclude import exclude_boatyard
from services.git.gitcmd import Command, GitError, GitOutput
from services.git.model import Head, Signature, StatusEntry, WorkingTree
from services.git.names import is_commit_id
from services.git.paths import GitPaths
from services.git.worktree.sandboxed import SandboxedGit, SandboxedInvocation, TreeView, nul_ended
from services.git.worktree.signatures import message_bytes, signature_line, signature_variables
from services.sandbox.spec import MountAccess

_LOCKED = ".lock': File exists"  # git's words

_ADD: Final = Command("update-index", ("--add", "-z", "--stdin"))
_PUT: Final = Command("update-index", ("-z", "--index-info"))
_ANY_BLOB: Final = b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
# Their names all become arguments of one `find`.
_MAX_STARTS: Final = 500

_log = structlog.get_logger()


class WorkingTrees:
    """Works on the repository of a working tree, as the agent left it."""

    def __init__(self, git: SandboxedGit, paths: GitPaths) -> None:
        self._git = git
        self._paths = paths

    async def head(self, tree: WorkingTree) -> Head:
        """Return the branch and the commit of HEAD.

        Raises:
            FailedPrecondition: NOT_A_REPOSITORY.
        """
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        symbolic = await self._run(
            tree, view, Command("symbolic-ref", ("--quiet",), ("HEAD",)), SandboxedInvocation(expected_codes=(0, 1))
        )
        (commit_id,) = await self._commit_ids(tree, view, b"HEAD")
        return Head(symbolic.line.removeprefix(b"refs/heads/"), commit_id or "")

    async def create_branch(self, tree: WorkingTree, branch: bytes, commit_id: str) -> str:
        """Make a branch at a commit (empty: HEAD's), and point HEAD at it; files and index stay as they are.

        At EMPTY_COMMIT_ID it has no commit yet, as in a new repository: the first one that is made begins it.

        Locks that a killed git left are removed, which is safe because the caller has the tree to itself.

        Raises:
            NotFound: REVISION_NOT_FOUND.
            AlreadyExists: BRANCH_EXISTS, the branch is at another commit.
            FailedPrecondition: NOT_A_REPOSITORY.
        """
        try:
            return await self._create_branch(tree, branch, commit_id)
        except FailedPrecondition as error:
            if _LOCKED not in error.message:
                raise
        _log.warning("removing the locks that a killed git left", tree=str(tree.path))
        await self._git.remove_locks(TreeView.of(tree, MountAccess.READ_WRITE))
        return await self._create_branch(tree, branch, commit_id)

    async def _create_branch(self, tree: WorkingTree, branch: bytes, commit_id: str) -> str:
        view = TreeView.of(tree, MountAccess.READ_WRITE)
        ref = b"refs/heads/" + branch
        target, existing = await self._commit_ids(tree, view, (commit_id or "HEAD").encode(), ref)
        if target is None:
            raise failures.revision_not_found(commit_id or "HEAD")
        if existing not in {None, target}:
            raise failures.branch_exists(branch, str(existing))
        if existing is None and target != EMPTY_COMMIT_ID:
            await self._run(tree, view, Command("update-ref", (), (ref, target, "0" * len(target))))
        await self._run(tree, view, Command("symbolic-ref", (), ("HEAD", ref)))
        return target

    async def status(self, tree: WorkingTree) -> list[StatusEntry]:
        """List the paths that differ from HEAD, in order; ignored ones are left out.

        Raises:
            FailedPrecondition: NOT_A_REPOSITORY.
        """
        view = TreeView.of(tree, MountAccess.READ_ONLY)
        command = Command("status", ("--porcelain=v2", "-z", "--untracked-files=all"))
        return sorted(parse_status((await self._run(tree, view, command)).stdout), key=lambda entry: entry.path)

    async def stage_all(self, tree: WorkingTree, leave_out: Iterable[str] = ()) -> int:
        """Stage what a result would have; return how many staged paths differ from HEAD.

        Those are new, changed and deleted files, those of repositories inside of the tree among them. What HEAD lacks
        and .gitignore files or the `leave_out` patterns name is not staged, nor does it stay so. What else the tree's
        repository is configured to ignore is staged.

        Raises:
            FailedPrecondition: NOT_A_REPOSITORY.
        """
        scratch = self._paths.scratch()
        try:
            exclude_boatyard(scratch, leave_out)
            TreeView.share(scratch, tree)
            view = TreeView.of(tree, MountAccess.READ_WRITE, scratch=scratch)
            flags = ("-z", f"--exclude-from={view.scratch / 'info' / 'exclude'}", "--exclude-per-directory=.gitignore")
            await self._run(tree, view, Command("add", ("--update",)))
            new = _records((await self._run(tree, view, Command("ls-files", ("--others", *flags)))).stdout)
            nested = {path for path in new if path.endswith(b"/")}
            new = (new - nested) | (await self._files_of(tree, view, nested, flags) if nested else set())
            if new:
                await self._run(tree, view, _ADD, SandboxedInvocation(stdin=nul_ended(sorted(new))))
            ignored = (await self._run(tree, view, Command("ls-files", ("--cached", "--ignored", *flags)))).stdout
            unwanted = _records(ignored) & _records(await self._staged(tree, view, "--diff-filter=A"))
            if unwanted:
                removed = SandboxedInvocation(stdin=nul_ended(sorted(unwanted)))
                await self._run(tree, view, Command("update-index", ("--force-remove", "-z", "--stdin")), removed)
            return len(_records(await self._staged(tree, view)))
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _files_of(
        self, tree: WorkingTree, view: TreeView, nested: set[bytes], flags: Iterable[str]
    ) -> set[bytes]:
        """Return the files of repositories inside of the tree, which git would take as links, that are not ignored.

        An index of their names alone, with any content, lets git tell which those are.
        """
        found: set[bytes] = set()
        starts = sorted(path.rstrip(b"/") for path in nested)
        for first in range(0, len(starts), _MAX_STARTS):
            with self._failures(tree):
                found.update((await self._git.listing(view, tuple(starts[first : first + _MAX_STARTS]))).files)
        index = {"GIT_INDEX_FILE": str(view.scratch / "names")}
        names = nul_ended(b"100644 " + _ANY_BLOB + b"\t" + path for path in sorted(found))
        await self._run(tree, view, _PUT, SandboxedInvocation(stdin=names, variables=index))
        ignored = Command("ls-files", ("--cached", "--ignored", *flags))
        return found - _records((await self._run(tree, view, ignored, SandboxedInvocation(variables=index))).stdout)

    async def _staged(self, tree: WorkingTree, view: TreeView, *flags: str) -> bytes:
        staged = Command("diff", ("--cached", "--name-only", "-z", "--no-renames", "--no-ext-diff", *flags))
        return (await self._run(tree, view, staged)).stdout

    async def commit(self, tree: WorkingTree, message: str, signature: Signature) -> str:
        """Commit what is staged, and return the commit. When HEAD is that very commit already, return HEAD.

        Raises:
            FailedPrecondition: NOTHING_TO_COMMIT, NOT_A_REPOSITORY.
        """
        view = TreeView.of(tree, MountAccess.READ_WRITE)
        head = (await self.head(tree)).commit_id
        if not await self._staged(tree, view):
            if head and await self._is_same(tree, view, head, message, signature):
                return head
            raise FailedPrecondition("NOTHING_TO_COMMIT", "nothing is staged that differs from HEAD", str(tree.path))
        invocation = SandboxedInvocation(stdin=message_bytes(message), variables=signature_variables(signature))
        flags = ("--quiet", "--no-verify", "--cleanup=verbatim", "--file=-")
        await self._run(tree, view, Command("commit", flags), invocation)
        return (await self.head(tree)).commit_id

    async def _is_same(self, tree: WorkingTree, view: TreeView, head: str, message: str, signature: Signature) -> bool:
        raw = (await self._run(tree, view, Command("cat-file", (), ("commit", head)))).stdout
        headers, _, body = raw.partition(b"\n\n")
        line = signature_line(signature)
        signed = {b"author " + line, b"committer " + line}
        return signed <= set(headers.split(b"\n")) and body == message_bytes(message)

    async def _commit_ids(self, tree: WorkingTree, view: TreeView, *names: bytes) -> list[str | None]:
        """Look up commits, all in one sandbox; None for a name that leads to no commit."""
        asked = b"".join(name + b"^{commit}\n" for name in names)
        answer = await self._run(
            tree, view, Command("cat-file", ("--batch-check=%(objectname)",)), SandboxedInvocation(stdin=asked)
        )
        # For a missing object git prints the name and `missing` in place of an id.
        lines = answer.stdout.decode("ascii", "replace").split("\n")[: len(names)]
        return [line if is_commit_id(line) else None for line in lines]

    async def _run(
        self, tree: WorkingTree, view: TreeView, command: Command, invocation: SandboxedInvocation | None = None
    ) -> GitOutput:
        if not tree.path.is_dir():
            raise failures.not_a_repository(str(tree.path), FileNotFoundError("there is no such directory"))
        with self._failures(tree):
            return await self._git.run(view, command, invocation)

    @contextmanager
    def _failures(self, tree: WorkingTree) -> Iterator[None]:
        with failures.of_sandboxes():
            try:
                yield
            except GitError as error:
                raise failures.not_a_repository(str(tree.path), error) from error


def _records(output: bytes) -> set[bytes]:
    return {record for record in output.split(b"\0") if record}


def parse_status(output: bytes) -> list[StatusEntry]:
    """Parse `git status --porcelain=v2 -z`. The numbers of fields are those of git-status(1)."""
    entries = []
    fields = iter(output.split(b"\0"))
    for record in fields:
        kind = record[:2]
        if kind == b"1 ":
            entries.append(_entry(record, 8))
        elif kind == b"2 ":
            entries.append(_entry(record, 9, old_path=next(fields)))
        elif kind == b"u ":
            entries.append(_entry(record, 10))
        elif kind == b"? ":
            entries.append(StatusEntry(record[2:], "?", "?"))
    return entries


def _entry(record: bytes, before_path: int, old_path: bytes = b"") -> StatusEntry:
    parts = record.split(b" ", before_path)
    letters = parts[1].decode("ascii")
    return StatusEntry(parts[before_path], letters[0], letters[1], old_path)
