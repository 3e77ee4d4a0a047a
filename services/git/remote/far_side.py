"""The far side of a remote on this machine: a second git that we start, in a sandbox that shows the repository alone.

Git starts it as it would on a server, with a command of ours. It has no network, our user's files are hidden but for
the repository's own, and nothing that the repository names is run: no hooks, no monitor, no maintenance.
"""

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from services.git import failures
from services.git.gitcmd import Invocation, build_environment
from services.git.remote.file_repository import FileRepository, FileRoots, opened
from services.sandbox import environment
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.launch import Launch, prepare
from services.sandbox.spec import Mount, MountAccess, SandboxSpec, Tier

_CONFIG: Final = {
    "safe.directory": "*",  # whose it is has been judged
    "core.hooksPath": "/dev/null",
    "core.alternateRefsCommand": "true",
    "core.fsmonitor": "false",
    "receive.autogc": "false",
}
_FLAGS: Final = {"upload-pack": "--upload-pack=", "receive-pack": "--receive-pack="}
_CONFIGURED: Final = tuple(part for key, value in _CONFIG.items() for part in (b"-c", f"{key}={value}".encode()))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """How one git command reaches a remote: the URL and the flags that it is given, and how it is run."""

    url: str
    flags: tuple[str, ...]
    invocation: Invocation


@dataclass(frozen=True, slots=True)
class FarSide:
    """Serves the repository at `path`, if it may lie there and is whose it should be, to one git command after another.

    `sandboxed` is False where there is no sandbox: then it serves repositories of our own user alone.
    """

    path: Path
    roots: FileRoots
    sandboxed: bool = True

    @contextlib.asynccontextmanager
    async def connected(self, program: str, invocation: Invocation) -> AsyncIterator[Connection]:
        """Give the connection of one command, while in this context. `program` is `upload-pack` or `receive-pack`.

        Raises:
            NoRepositoryError: there is no repository.
            FailedPrecondition: REMOTE_NOT_ALLOWED; SANDBOX_UNAVAILABLE.
        """
        async with _entered(self._prepared(program)) as (git_dir, launch):
            # Git has a shell run this, with the directory after it. The shell must not stay: it would not end with git.
            command = f"exec {shlex.join(os.fsdecode(part) for part in launch.argv)}"
            flag = _FLAGS[program] + command
            fds = (*invocation.inherited_fds, *launch.pass_fds)
            yield Connection(f"file://{quote(os.fsencode(git_dir))}", (flag,), replace(invocation, inherited_fds=fds))

    def repository(self) -> AbstractAsyncContextManager[FileRepository]:
        """Give the repository itself, opened. Raises NoRepositoryError; FailedPrecondition: REMOTE_NOT_ALLOWED."""
        return _entered(self._opened())

    def _opened(self) -> AbstractContextManager[FileRepository]:
        roots = self.roots if self.sandboxed else replace(self.roots, others=())
        return opened(self.path, roots, sandboxed=self.sandboxed)

    @contextlib.contextmanager
    def _prepared(self, program: str) -> Iterator[tuple[Path, Launch]]:
        with self._opened() as repository:
            try:
                with prepare(self._spec(program, repository)) as launch:
                    yield repository.git_dir, launch
            except SandboxUnavailableError as error:
                raise failures.far_side_unavailable(error) from error

    def _spec(self, program: str, repository: FileRepository) -> SandboxSpec:
        access = MountAccess.READ_WRITE if program == "receive-pack" else MountAccess.READ_ONLY
        shown = [Mount(part.path, access=access, descriptor=part.descriptor) for part in repository.parts]
        shown += [Mount(lender.path, descriptor=lender.descriptor) for lender in repository.borrowed]
        # A submodule's configuration names its working tree, which is not shown.
        variables = build_environment(environment.HOME) | {"GIT_PROTOCOL": "version=2", "GIT_WORK_TREE": "/"}
        return SandboxSpec(
            argv=(b"git", *_CONFIGURED, program.encode()),
            cwd=Path("/"),
            mounts=tuple(shown),
            environment={name: os.fsencode(value) for name, value in variables.items()},
            tier=Tier.BUBBLEWRAP if self.sandboxed else Tier.NONE,
        )


@contextlib.asynccontextmanager
async def _entered(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter a context in another thread, and leave it at the end of the block."""
    with contextlib.ExitStack() as stack:
        opening = asyncio.ensure_future(asyncio.to_thread(stack.enter_context, context))
        try:
            entered = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])  # otherwise what it opens would never be closed
            raise
        yield entered
