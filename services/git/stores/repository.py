"""What our own repositories have in common: a lock for one writer, clean-up after a killed git, lookup of commits."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.common.lock import FileLock, LockHeldError
from services.git.gitcmd import Command, Git, Invocation
from services.git.names import is_commit_id
from services.git.remote.bounds import NetworkLimits

_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How long to wait for other processes, how much must be free before anything begins, and what a remote may take.

    Of a remote with more than `max_refs` branches and tags, a mirror gets only those that were asked for.
    """

    lock_seconds: float = 120
    min_free_bytes: int = 256 * 1024 * 1024
    max_refs: int = 10_000
    network: NetworkLimits = field(default_factory=NetworkLimits)


@contextlib.asynccontextmanager
async def locked(path: Path, wait_seconds: float) -> AsyncIterator[int]:
    """Hold the lock on `path`. Yields its descriptor.

    The kernel releases the lock when the last process with the descriptor ends. So a git that inherits it
    (`inherited_fds`) keeps its repository locked until it ends, even when the service that started it is killed.

    Raises:
        LockHeldError: it was not free within `wait_seconds`.
    """
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while (lock := _try_lock(path)) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise LockHeldError(path, None)
        await asyncio.sleep(_POLL_SECONDS)
    try:
        yield lock.descriptor
    finally:
        lock.release()


def _try_lock(path: Path) -> FileLock | None:
    try:
        return FileLock(path)
    except LockHeldError:
        return None


async def commit_of(git: Git, repository: Path, name: bytes) -> str | None:
    """Return the full id of the commit that `name` leads to in one of our repositories, None when there is none."""
    peeled = name + b"^{commit}"
    answer = await git.run(
        Command("rev-parse", ("--verify", "--quiet"), (peeled,)),
        Invocation(git_dir=repository, expected_codes=(0, 1, 128)),
    )
    text = answer.line.decode("ascii", "replace")
    return text if answer.code == 0 and is_commit_id(text) else None


def remove_stale_locks(repository: Path) -> None:
    """Remove what a killed git left. We hold the repository's lock, so no git of ours is alive in it."""
    for leftover in (
        *repository.rglob("*.lock"),
        *repository.glob("objects/pack/tmp_*"),
        *repository.glob("objects/incoming-*"),
    ):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
