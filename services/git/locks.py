"""Waiting for a lock between processes that a crash cannot leave behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from services.common.lock import FileLock, LockHeldError

_POLL_SECONDS: Final = 0.05


@contextlib.asynccontextmanager
async def locked(path: Path, wait_seconds: float) -> AsyncIterator[int]:
    """Hold the lock on `path`, and gives its descriptor.

    The kernel lets go of it when the last process that has the descriptor is gone. So a git that is given it
    (`Invocation.held`) keeps its repository locked until it ends, even when the service that started it was killed.

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
