"""Who waits for a change of a job is woken at once by what this process changes, and by what it hears of others.

A notice of others may be lost, or there are none (see `broadcast`). So a waiter subscribes, looks, and waits no longer
than a poll interval: a notice that is lost costs that much time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORK = ""
"""What is subscribed to in place of a job, by those who wait for any job to be admitted, or asked to end."""

ALL = "*"
"""The same, by those who wait for a change of any job."""


class JobNotifier:
    """Wakes the waiters of this process. `on_work` is called when there is something for the driver."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._on_work: Callable[[], None] = lambda: None
        self._on_change: Callable[[str, bool], None] = lambda _job_id, _work: None

    def call_on_work(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when a job was admitted, or is to end."""
        self._on_work = wake

    def call_on_change(self, publish: Callable[[str, bool], None]) -> None:
        """Have `publish` called with what this process has changed, for others to hear."""
        self._on_change = publish

    def notify(self, job_id: str, *, work: bool = False) -> None:
        """A job has changed; `work` says that the driver should look. MUST come after the change was committed."""
        self.notify_local(job_id, work=work)
        self._on_change(job_id, work)

    def notify_all(self) -> None:
        """Any job may have changed."""
        for event in [event for events in self._waiting.values() for event in events]:
            event.set()
        self._on_work()

    def notify_local(self, job_id: str, *, work: bool = False) -> None:
        """Wake those who wait in this process."""
        for event in (*self._waiting.get(job_id, ()), *self._waiting.get(ALL, ())):
            event.set()
        if work:
            for event in self._waiting.get(WORK, ()):
                event.set()
            self._on_work()

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator["Subscription"]:
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
