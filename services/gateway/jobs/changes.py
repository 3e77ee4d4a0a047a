"""Who waits for a change of a job in this process is woken at once; what other processes change is found by looking.

So a waiter subscribes, looks, and waits no longer than a poll interval: a notice that is lost costs that much time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORK = ""
"""What is subscribed to in place of a job, by those who wait for any job to be admitted, or asked to end."""

ALL = "*"
"""The same, by those who wait for a change of any job."""


class Changes:
    """Wakes the waiters of this process. `on_work` is called when there is something for the driver."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._on_work: Callable[[], None] = lambda: None

    def call_on_work(self, poke: Callable[[], None]) -> None:
        """Have `poke` called when a job was admitted, or is to end."""
        self._on_work = poke

    def changed(self, job_id: str, *, work: bool = False) -> None:
        """A job has changed; `work` says that the driver should look."""
        for event in (*self._waiting.get(job_id, ()), *self._waiting.get(ALL, ())):
            event.set()
        if work:
            for event in self._waiting.get(WORK, ()):
                event.set()
            self._on_work()

    @contextmanager
    def subscribed(self, job_id: str) -> Iterator["Subscription"]:
        """Notice changes of a job, of WORK, or of ALL, from here on."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            yield Subscription(event)
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]


class Subscription:
    """One waiter's."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> None:
        """Return at the next change, or one since the last wait; or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()
