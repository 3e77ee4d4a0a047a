"""Git on a tree that an agent could write: the command table and environment of `gitcmd`, inside a sandbox.

Whatever the tree's `.git` makes git execute runs in there: without network, without our files, as nobody.
"""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.git.gitcmd import Command, GitFailed, GitOutput, GitTimedOut, OutputTooLarge, build_environment, git_argv
from services.git.gitcmd.errors import scrub
from services.git.model import WorkingTree
from services.git.worktree.changes import TreeListing
from services.sandbox import aio, environment, host_uids
from services.sandbox.errors import OutputLimitError, SandboxTimeoutError
from services.sandbox.spec import Mount, MountAccess, Overlay, SandboxSpec, Tier

_WORKSPACE: Final = Path("/workspace")
_SCRATCH: Final = Path("/scratch")
# Commands that only look something up in what an agent left answer at once, unless the agent put a pipe there.
ANSWER_SECONDS = 30.0
_LOOKUPS: Final = frozenset({"cat-file", "config", "ls-tree", "merge-base", "rev-parse", "symbolic-ref"})
_LISTING_BYTES: Final = 512 * 1024 * 1024
# What git cannot take is printed with a letter of ours, and not descended into. `find` prints `./` before each path,
# and the system takes paths of 4095 bytes.
_LISTED: Final = (
    *(b"-regextype", b"posix-extended", b"-name", b".git", b"-prune"),
    *(b"-o", b"-regex", b".{4098,}", b"-prune", b"-printf", b"L%p\\0"),
    *(b"-o", b"-type", b"d", b"(", b"!", b"-readable", b"-o", b"!", b"-executable", b")"),
    *(b"-prune", b"-printf", b"R%p\\0"),
    *(b"-o", b"-type", b"f", b"!", b"-readable", b"-printf", b"R%p\\0"),
    *(b"-o", b"-printf", b"%y%p\\0"),
)
_STDERR_KEPT: Final = 10 * 1024
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class TreeView:
    """What git sees: the tree, the objects that it borrows, and perhaps a scratch directory of ours.

    `tree` and `scratch` are the paths that git sees. Without a sandbox those are the host's own.
    """

    tree: Path
    scratch: Path
    tier: Tier
    mounts: tuple[Mount | Overlay, ...]

    @classmethod
    def of(cls, working_tree: WorkingTree, access: MountAccess, *, scratch: Path | None = None) -> "TreeView":
        """Show a working tree, what it borrows, and `scratch`, writable, if there is one."""
        borrowed = tuple(Mount(path) for path in working_tree.read_only_paths)
        layers = working_tree.layers
        if working_tree.tier is Tier.NONE and (layers is None or layers.mounted_path):
            return cls(working_tree.path, scratch or working_tree.path, Tier.NONE, borrowed)
        tree: Mount | Overlay = Mount(working_tree.path, _WORKSPACE, access)
        if layers is not None:
            # Even who only reads takes the layers' hold: otherwise they could change while it reads.
            tree = Overlay(layers.lowers, layers.upper, layers.work, _WORKSPACE, layers.mounted_path, "git")
        scratch_mounts = (Mount(scratch, _SCRATCH, MountAccess.READ_WRITE),) if scratch else ()
        return cls(_WORKSPACE, _SCRATCH, working_tree.tier, (tree, *borrowed, *scratch_mounts))

    @staticmethod
    def share(scratch: Path, tree: WorkingTree) -> None:
        """Let the uid of the tree's agents, which git gets too, write in a scratch directory that we have just made."""
        owner = host_uids.owner(tree.path)
        if owner is not None:
            for directory, _, names in os.walk(scratch):
                for name in (".", *names):
                    os.chown(Path(directory, name), owner, owner, follow_symlinks=False)

    def inside(self, path: bytes) -> "TreeView":
        """Return the view of a directory of the tree as a tree of its own."""
        return replace(self, tree=self.tree / os.fsdecode(path))


@dataclass(frozen=True, slots=True)
class SandboxedInvocation:
    """What one run needs beside its command. `git_dir` is the tree's own `.git` unless another one is given."""

    git_dir: Path | None = None
    stdin: bytes = b""
    variables: dict[str, str] = field(default_factory=dict)
    expected_codes: tuple[int, ...] = (0,)
    timeout_seconds: float = 600
    output_limit: int = 64 * 1024 * 1024


class SandboxedGit:
    """Runs git, `find` and `tar` in sandboxes."""

    async def run(self, view: TreeView, command: Command, invocation: SandboxedInvocation | None = None) -> GitOutput:
        """Run one command to its end.

        Raises:
            GitFailed, GitTimedOut, OutputTooLarge: as `Git.run`.
            SandboxUnavailableError: this machine has no sandbox.
        """
        invocation = invocation or SandboxedInvocation()
        spec = self._spec(view, command, invocation)
        completed = await self._bounded(spec, command.name, invocation)
        stderr = _stderr_text(completed.stderr)
        # A sandbox that cannot be made also exits with 1, which for many commands is an answer.
        if completed.exit_code not in invocation.expected_codes or stderr.startswith("bwrap: "):
            raise GitFailed(command.name, completed.exit_code, stderr)
        return GitOutput(completed.exit_code, completed.stdout, stderr)

    async def write_output(
        self, view: TreeView, command: Command, target: Path, invocation: SandboxedInvocation
    ) -> None:
        """Run one command, and write its output, at most `invocation.output_limit` bytes, to a file of ours.

        Raises the errors of `run`.
        """
        await self._write_output(self._spec(view, command, invocation), command.name, target, invocation)

    async def write_archive(self, view: TreeView, paths: Iterable[bytes], target: Path, limit: int) -> None:
        """Write some files, by their paths from the top, to a tar of at most `limit` bytes. It lacks unreadable ones.

        Links are archived as such, and nothing else than a regular file is opened.

        Raises the errors of `run`.
        """
        flags = (b"--format=gnu", b"--no-recursion", b"--hard-dereference", b"--numeric-owner")
        names = (b"--null", b"--files-from=-")
        spec = self._plain_spec(view, (b"tar", b"--create", b"--file=-", *flags, *names))
        stdin = nul_ended(b"./" + path for path in paths)
        # 1: a file changed meanwhile; 2: a file could not be read.
        invocation = SandboxedInvocation(stdin=stdin, expected_codes=(0, 1, 2), output_limit=limit)
        await self._write_output(spec, "tar", target, invocation)

    async def find(
        self,
        view: TreeView,
        expression: tuple[bytes, ...],
        starts: tuple[bytes, ...] = (b".",),
        *,
        expected_codes: tuple[int, ...] = (0, 1),
    ) -> list[bytes]:
        """Run `find`; return what it printed, sorted: records that end with NUL. Its code is 1 for what it cannot read.

        Raises the errors of `run`.
        """
        spec = self._plain_spec(view, (b"find", *starts, *expression))
        completed = await self._bounded(spec, "find", SandboxedInvocation(output_limit=_LISTING_BYTES))
        # A sandbox that cannot be made also exits with 1.
        if completed.exit_code not in expected_codes or completed.stderr.startswith(b"bwrap: "):
            raise GitFailed("find", completed.exit_code, _stderr_text(completed.stderr))
        return sorted(record for record in completed.stdout.split(b"\0") if record)

    async def listing(self, view: TreeView, starts: tuple[bytes, ...] = (b"",)) -> TreeListing:
        """List directories of the tree and all that is below them, without the `.git` of repositories.

        Raises the errors of `run`.
        """
        found: dict[bytes, list[bytes]] = {}
        below = tuple(b"./" + start for start in starts)
        for record in await self.find(view, _LISTED, below, expected_codes=(0,)):
            found.setdefault(record[:1], []).append(record[1:].removeprefix(b"./"))
        special = [path for kind, paths in found.items() if kind not in b"fldRL" for path in paths]
        return TreeListing(
            files=(*found.get(b"f", ()), *found.get(b"l", ())),
            directories=tuple(path for path in found.get(b"d", ()) if path),
            special=tuple(special),
            unreadable=tuple(found.get(b"R", ())),
            too_long=tuple(found.get(b"L", ())),
        )

    async def remove_locks(self, view: TreeView) -> None:
        """Remove the lock files of the tree's own repository.

        Raises the errors of `run`.
        """
        await self.find(view, (b"-type", b"f", b"-name", b"*.lock", b"-delete"), (b"./.git",))

    async def _write_output(self, spec: SandboxSpec, name: str, target: Path, invocation: SandboxedInvocation) -> None:
        try:
            async with (
                asyncio.timeout(invocation.timeout_seconds),
                aio.start(spec, stdin=asyncio.subprocess.PIPE) as process,
            ):
                stderr_task = asyncio.create_task(_pump(process, invocation.stdin))
                try:
                    await _copy(process, target, name, invocation.output_limit)
                    code, stderr = await process.wait(), await stderr_task
                finally:
                    stderr_task.cancel()
        except TimeoutError:
            raise GitTimedOut(name, invocation.timeout_seconds) from None
        text = _stderr_text(stderr)
        # A sandbox that cannot be made also exits with 1, which for some commands is an answer.
        if code not in invocation.expected_codes or text.startswith("bwrap: "):
            raise GitFailed(name, code, text)

    async def _bounded(self, spec: SandboxSpec, name: str, invocation: SandboxedInvocation) -> aio.Completed:
        try:
            is_lookup = name in _LOOKUPS and invocation.git_dir is None
            seconds = min(invocation.timeout_seconds, ANSWER_SECONDS) if is_lookup else invocation.timeout_seconds
            return await aio.run(spec, stdin=invocation.stdin, max_output=invocation.output_limit, timeout=seconds)
        except SandboxTimeoutError as error:
            raise GitTimedOut(name, seconds) from error
        except OutputLimitError as error:
            raise OutputTooLarge(name, invocation.output_limit) from error

    def _plain_spec(self, view: TreeView, argv: tuple[bytes, ...]) -> SandboxSpec:
        variables = {**environment.base(), "LC_ALL": b"C"}
        return SandboxSpec(argv=argv, cwd=view.tree, mounts=view.mounts, environment=variables, tier=view.tier)

    def _spec(self, view: TreeView, command: Command, invocation: SandboxedInvocation) -> SandboxSpec:
        # The tree belongs to our own user, who has another uid inside the sandbox, where foreign owners do no harm.
        config = [*command.spec.config.items(), ("safe.directory", "*")]
        variables = build_environment(environment.HOME, config=config) | invocation.variables
        variables |= {"GIT_DIR": str(invocation.git_dir or view.tree / ".git"), "GIT_WORK_TREE": str(view.tree)}
        return SandboxSpec(
            argv=(b"git", *git_argv(command)),
            cwd=view.tree,
            mounts=view.mounts,
            environment={name: os.fsencode(value) for name, value in variables.items()},
            tier=view.tier,
        )


async def _pump(process: asyncio.subprocess.Process, stdin: bytes) -> bytes:
    """Write all of stdin, then return the end of stderr."""
    if process.stdin is None or process.stderr is None:
        raise RuntimeError("the process was started without pipes")
    process.stdin.write(stdin)
    process.stdin.close()
    kept = b""
    while chunk := await process.stderr.read(_CHUNK):
        kept = (kept + chunk)[-_STDERR_KEPT:]
    return kept


async def _copy(process: asyncio.subprocess.Process, target: Path, name: str, limit: int) -> None:
    if process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    size = 0
    with target.open("xb") as file:
        while chunk := await process.stdout.read(_CHUNK):
            size += len(chunk)
            if size <= limit:
                file.write(chunk)
            elif process.returncode is None:
                # The rest is read all the same: a pipe that is not read to its end stays open.
                process.kill()
    if size > limit:
        raise OutputTooLarge(name, limit)


def nul_ended(records: Iterable[bytes]) -> bytes:
    """Return what git reads with `-z`: each record, and a zero byte."""
    return b"".join(record + b"\0" for record in records)


def _stderr_text(stderr: bytes) -> str:
    return scrub(stderr.decode("utf-8", "replace"))[-_STDERR_KEPT:].strip()
