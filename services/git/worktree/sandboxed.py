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
from services.sandbox import aio, environment, host_uids
from services.sandbox.errors import OutputLimitError, SandboxTimeoutError
from services.sandbox.spec import Mount, MountAccess, Overlay, SandboxSpec, Tier

_WORKSPACE: Final = Path("/workspace")
_SCRATCH: Final = Path("/scratch")
# Commands that only look something up in an agent's `.git` answer at once, unless the agent put a pipe there.
ANSWER_SECONDS = 30.0
_LOOKUPS: Final = frozenset({"cat-file", "merge-base", "rev-parse", "symbolic-ref"})
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

    def hiding(self, hidden: tuple[Mount, ...]) -> "TreeView":
        """Return the same view with something mounted over parts of it. Without a sandbox nothing can be hidden."""
        return self if self.tier is Tier.NONE else replace(self, mounts=(*self.mounts, *hidden))


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
        stdin = b"".join(b"./" + path + b"\0" for path in paths)
        # 1: a file changed meanwhile; 2: a file could not be read.
        invocation = SandboxedInvocation(stdin=stdin, expected_codes=(0, 1, 2), output_limit=limit)
        await self._write_output(spec, "tar", target, invocation)

    async def find(
        self, view: TreeView, expression: tuple[bytes, ...], starts: tuple[bytes, ...] = (b".",)
    ) -> list[bytes]:
        """Run `find`; return what it printed, sorted: records that end with NUL.

        Raises the errors of `run`.
        """
        spec = self._plain_spec(view, (b"find", *starts, *expression))
        completed = await self._bounded(spec, "find", SandboxedInvocation())
        # Unreadable directories make it exit with 1; git will say more about them than we could.
        if completed.exit_code not in {0, 1} or completed.stderr.startswith(b"bwrap: "):
            raise GitFailed("find", completed.exit_code, _stderr_text(completed.stderr))
        return sorted(record for record in completed.stdout.split(b"\0") if record)

    async def nested_repositories(self, view: TreeView) -> dict[bytes, bool]:
        """Find the repositories inside the tree: their paths from its top, and whether their `.git` is a directory.

        Raises the errors of `run`.
        """
        expression = (
            b"-mindepth",
            b"2",
            b"-name",
            b".git",
            b"(",
            b"-type",
            b"d",
            b"-o",
            b"-type",
            b"f",
            b")",
            b"-prune",
        )
        repositories = await self._find(view, (b".",), expression)
        return {path.removesuffix(b"/.git"): kind == b"d" for kind, path in repositories}

    async def below(self, view: TreeView, paths: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Return the files and links below some directories, and the directories: paths from the top of the tree.

        The `.git` of repositories is left out.

        Raises the errors of `run`.
        """
        kinds = (b"(", b"-type", b"f", b"-o", b"-type", b"l", b"-o", b"-type", b"d", b")")
        starts = tuple(b"./" + path for path in paths)
        listed = await self._find(view, starts, (b"-mindepth", b"1", b"-name", b".git", b"-prune", b"-o", *kinds))
        files = tuple(path for kind, path in listed if kind != b"d")
        return files, tuple(path for kind, path in listed if kind == b"d")

    async def remove_locks(self, view: TreeView) -> None:
        """Remove the lock files of the tree's own repository.

        Raises the errors of `run`.
        """
        await self._find(view, (b"./.git",), (b"-type", b"f", b"-name", b"*.lock", b"-delete"))

    async def _find(
        self, view: TreeView, starts: tuple[bytes, ...], expression: tuple[bytes, ...]
    ) -> list[tuple[bytes, bytes]]:
        records = await self.find(view, (*expression, b"-printf", b"%y%p\\0"), starts)
        return [(record[:1], record[1:].removeprefix(b"./")) for record in records]

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


def _stderr_text(stderr: bytes) -> str:
    return scrub(stderr.decode("utf-8", "replace"))[-_STDERR_KEPT:].strip()
