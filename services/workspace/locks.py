"""One lock for each workspace that somebody works on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class WorkspaceLocks:
    """The locks of workspaces, for as long as somebody holds them or waits for them."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def held(self, workspace_id: str) -> AsyncIterator[None]:
        """Hold the lock of a workspace."""
        lock, users = self._locks.get(workspace_id, (asyncio.Lock(), 0))
        self._locks[workspace_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(workspace_id)
            if users > 1:
                self._locks[workspace_id] = (lock, users - 1)
