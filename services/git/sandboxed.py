"""Git on a tree that an agent could write: the same table and environment, inside a sandbox.

Whatever the tree's `.git` makes git execute, it executes in there: without network, without our files, as nobody.
"""

import asyncio
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.git.gitcmd import Command, Completed, GitFailed, GitTimedOut, OutputTooLarge, build_environment, git_argv
from services.git.gitcmd.failures import scrub
from services.git.model import WorkingTree
from services.sandbox import aio, environment
from services.sandbox.errors import OutputLimitError, SandboxTimeoutError
from services.sandbox.spec import Mount, MountAccess, Overlay, SandboxSpec, Tier

_WORKSPACE: Final = Path("/workspace")
_BENCH: Final = Path("/bench")
# What only looks something up in an agent's `.git` answers at once; a pipe that was put there never does.
ANSWER_SECONDS = 30.0
_ASKING: Final = frozenset({"cat-file", "merge-base", "rev-parse", "symbolic-ref"})
_STDERR_KEPT: Final = 10 * 1024
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class View:
    """What git sees: the tree, perhaps a bench (a directory of ours to work in), objects to borrow.

    `tree` and `bench` are the paths as git has them. Without a sandbox those are the host's own.
    """

    tree: Path
    bench: Path
    tier: Tier
    mounts: tuple[Mount | Overlay, ...]

    @classmethod
    def of(cls, working_tree: WorkingTree, access: MountAccess, *, bench: Path | None = None) -> "View":
        """Show a working tree with what it borrows, and `bench` (writable) where there is one."""
        borrowed = tuple(Mount(path) for path in working_tree.read_only_paths)
        layers = working_tree.layers
        if working_tree.tier is Tier.NONE and (layers is None or layers.mounted_path):
            return cls(working_tree.path, bench or working_tree.path, Tier.NONE, borrowed)
        tree: Mount | Overlay = Mount(working_tree.path, _WORKSPACE, access)
        if layers is not None:
            # Who only reads holds them as everybody else does: they would change below it.
            tree = Overlay(layers.lowers, layers.upper, layers.work, _WORKSPACE, layers.mounted_path, "git")
        benches = (Mount(bench, _BENCH, MountAccess.READ_WRITE),) if bench else ()
        return cls(_WORKSPACE, _BENCH, working_tree.tier, (tree, *borrowed, *benches))

    def hiding(self, hidden: tuple[Mount, ...]) -> "View":
        """The same, with something mounted over parts of it; without a sandbox nothing can be hidden."""
        return self if self.tier is Tier.NONE else replace(self, mounts=(*self.mounts, *hidden))


@dataclass(frozen=True, slots=True)
class How:
    """What one run needs beside its command; `git_dir` is the tree's own `.git` unless another is given."""

    git_dir: Path | None = None
    stdin: bytes = b""
    variables: dict[str, str] = field(default_factory=dict)
    expected_codes: tuple[int, ...] = (0,)
    timeout_seconds: float = 600
    output_limit: int = 64 * 1024 * 1024


class SandboxedGit:
    """Starts git, and `find`, in sandboxes."""

    async def run(self, view: View, command: Command, how: How | None = None) -> Completed:
        """Run one command to its end.

        Raises:
            GitFailed, GitTimedOut, OutputTooLarge: as `Git.run`.
            SandboxUnavailableError: there is no sandbox here.
        """
        how = how or How()
        spec = self._spec(view, command, how)
        completed = await self._bounded(spec, command.name, how)
        stderr = _said(completed.stderr)
        # A sandbox that cannot be made exits with 1 too, which for many commands is an answer.
        if completed.exit_code not in how.expected_codes or stderr.startswith("bwrap: "):
            raise GitFailed(command.name, completed.exit_code, stderr)
        return Completed(completed.exit_code, completed.stdout, stderr)

    async def write_output(self, view: View, command: Command, target: Path, how: How) -> None:
        """Run one command whose output goes to a file of ours, at most `how.output_limit` bytes of it.

        Raises: as `run`.
        """
        spec = self._spec(view, command, how)
        try:
            async with asyncio.timeout(how.timeout_seconds), aio.start(spec, stdin=asyncio.subprocess.PIPE) as process:
                said = asyncio.create_task(_pump(process, how.stdin))
                try:
                    await _copy(process, target, command.name, how.output_limit)
                    code, stderr = await process.wait(), await said
                finally:
                    said.cancel()
        except TimeoutError:
            raise GitTimedOut(command.name, how.timeout_seconds) from None
        if code not in how.expected_codes:
            raise GitFailed(command.name, code, _said(stderr))

    async def nested_repositories(self, view: View) -> dict[bytes, bool]:
        """Find the repositories inside of the tree: their paths from its top, and whether `.git` is a directory there.

        Raises: as `run`.
        """
        wanted = (b"-mindepth", b"2", b"-name", b".git", b"(", b"-type", b"d", b"-o", b"-type", b"f", b")", b"-prune")
        found = await self._find(view, (b".",), wanted)
        return {path.removesuffix(b"/.git"): kind == b"d" for kind, path in found}

    async def below(self, view: View, paths: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Return the files and links below some directories, and the directories: paths from the top of the tree.

        Repositories' `.git` is left out.

        Raises: as `run`.
        """
        kinds = (b"(", b"-type", b"f", b"-o", b"-type", b"l", b"-o", b"-type", b"d", b")")
        starts = tuple(b"./" + path for path in paths)
        found = await self._find(view, starts, (b"-mindepth", b"1", b"-name", b".git", b"-prune", b"-o", *kinds))
        files = tuple(path for kind, path in found if kind != b"d")
        return files, tuple(path for kind, path in found if kind == b"d")

    async def remove_locks(self, view: View) -> None:
        """Remove the lock files of the tree's own repository.

        Raises: as `run`.
        """
        await self._find(view, (b"./.git",), (b"-type", b"f", b"-name", b"*.lock", b"-delete"))

    async def _find(
        self, view: View, starts: tuple[bytes, ...], wanted: tuple[bytes, ...]
    ) -> list[tuple[bytes, bytes]]:
        spec = SandboxSpec(
            argv=(b"find", *starts, *wanted, b"-printf", b"%y%p\\0"),
            cwd=view.tree,
            mounts=view.mounts,
            environment={**environment.base(), "LC_ALL": b"C"},
            tier=view.tier,
        )
        found = await self._bounded(spec, "find", How())
        # Directories that cannot be read make it exit with 1; git will say more about them than we could.
        if found.exit_code not in {0, 1} or found.stderr.startswith(b"bwrap: "):
            raise GitFailed("find", found.exit_code, _said(found.stderr))
        records = sorted(record for record in found.stdout.split(b"\0") if record)
        return [(record[:1], record[1:].removeprefix(b"./")) for record in records]

    async def _bounded(self, spec: SandboxSpec, name: str, how: How) -> aio.Completed:
        try:
            asking = name in _ASKING and how.git_dir is None
            seconds = min(how.timeout_seconds, ANSWER_SECONDS) if asking else how.timeout_seconds
            return await aio.run(spec, stdin=how.stdin, max_output=how.output_limit, timeout=seconds)
        except SandboxTimeoutError as error:
            raise GitTimedOut(name, seconds) from error
        except OutputLimitError as error:
            raise OutputTooLarge(name, how.output_limit) from error

    def _spec(self, view: View, command: Command, how: How) -> SandboxSpec:
        # The tree belongs to our own user, who has another number in here; and it is nobody's we would have to fear.
        config = [*command.spec.config.items(), ("safe.directory", "*")]
        variables = build_environment(environment.HOME, config=config) | how.variables
        variables |= {"GIT_DIR": str(how.git_dir or view.tree / ".git"), "GIT_WORK_TREE": str(view.tree)}
        return SandboxSpec(
            argv=(b"git", *git_argv(command)),
            cwd=view.tree,
            mounts=view.mounts,
            environment={name: os.fsencode(value) for name, value in variables.items()},
            tier=view.tier,
        )


async def _pump(process: asyncio.subprocess.Process, stdin: bytes) -> bytes:
    """Write all of stdin, and return the end of stderr."""
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
                # What is left is read all the same: a pipe that is not read to its end stays open.
                process.kill()
    if size > limit:
        raise OutputTooLarge(name, limit)


def _said(stderr: bytes) -> str:
    return scrub(stderr.decode("utf-8", "replace"))[-_STDERR_KEPT:].strip()
