"""Fetches the branches that jobs often start from ahead of time, so that no job waits for a large fetch.

Only remotes that need no token are warmed: we promise to keep a token no longer than its call, and a revoked one must
not be tried again and again. Where tokens are needed, a delta layer keeps the first job of a new commit from waiting
long.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.git.model import Remote

_OFTEN: Final = 3
_WITHIN_SECONDS: Final = 24 * 3600
_REMEMBERED: Final = 256
# At most this many branches a round, one after another. A remote that fails is skipped for twice as many rounds each
# time.
_AT_ONCE: Final = 8
_LONGEST_PAUSE: Final = 64

_log = structlog.get_logger()


@dataclass(slots=True)
class _Branch:
    remote: Remote
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=_OFTEN))
    pause: int = 0
    skipped: int = 0

    def is_due(self, now: float) -> bool:
        return len(self.starts) == _OFTEN and now - self.starts[0] < _WITHIN_SECONDS


class BranchWarmer:
    """Remembers, in memory, which branches jobs start from, and prepares their bases.

    Args:
        prepare: prepares the base of a branch of a remote.
        interval_seconds: the pause between two rounds; 0 turns warming off.
    """

    def __init__(self, prepare: Callable[[Remote, bytes], Awaitable[object]], interval_seconds: float) -> None:
        self._prepare = prepare
        self._interval_seconds = interval_seconds
        self._branches: OrderedDict[tuple[str, bytes], _Branch] = OrderedDict()

    def note(self, remote: Remote, branch: bytes) -> None:
        """Remember that a job started from a branch."""
        key = (remote.repository_id, branch)
        known = self._branches.pop(key, None)
        if remote.token or not branch:
            return
        if known is None or known.remote.url != remote.url:
            known = _Branch(remote)
        known.starts.append(time.time())
        self._branches[key] = known
        if len(self._branches) > _REMEMBERED:
            self._branches.popitem(last=False)

    async def run_warming(self) -> None:
        """Warm at every interval, until cancelled."""
        while self._interval_seconds:
            await asyncio.sleep(self._interval_seconds)
            await self.warm()

    async def warm(self) -> None:
        """Prepare the branches that jobs often start from, the latest first."""
        now = time.time()
        due = [(branch, known) for (_, branch), known in self._branches.items() if known.is_due(now)]
        for branch, known in due[::-1][:_AT_ONCE]:
            if known.skipped < known.pause:
                known.skipped += 1
                continue
            known.skipped = 0
            try:
                await self._prepare(known.remote, branch)
                known.pause = 0
            except Exception as error:  # noqa: BLE001 - nobody waits for this; a job that starts there gets the error itself
                known.pause = min(_LONGEST_PAUSE, 2 * known.pause or 1)
                _log.info("cannot warm a branch", repository_id=known.remote.repository_id, error=str(error))
