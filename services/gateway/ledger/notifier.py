"""Wakes those who wait for a change of a job, at once for changes of this process and those it hears of from others.

A notification from others may be lost, or there are none (see `broadcast`). So a waiter subscribes, looks, and waits no
longer than a poll interval: a lost notification costs that much time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORK = ""
"""Subscribed to, in place of a job, by those who wait for any job to be admitted, or asked to end."""

ALL = "*"
"""Subscribed to, in place of a job, by those who wait for a change of any job."""

MODELS = "$models"
"""Subscribed to, in place of a job, by requests to models that wait."""


class JobNotifier:
    """Wakes the waiters of this process, and its driver when there is something for it."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._on_work: Callable[[str], None] = lambda _job_id: None
        self._on_change: Callable[[str, bool], None] = lambda _job_id, _work: None

    def call_on_work(self, wake: Callable[[str], None]) -> None:
        """Have `wake` called with the id of a job that was admitted, or is asked to end; empty when any may be."""
        self._on_work = wake

    def call_on_change(self, publish: Callable[[str, bool], None]) -> None:
        """Have `publish` called with each change of this process, for other processes: a job's id, and `work`."""
        self._on_change = publish

    def notify(self, job_id: str, *, work: bool = False) -> None:
        """Announce a change of a job; `work` means that the driver should look. MUST come after the commit."""
        self.notify_local(job_id, work=work)
        self._on_change(job_id, work)

    def notify_all(self) -> None:
        """Wake everybody, because any job may have changed."""
        for event in [event for events in self._waiting.values() for event in events]:
            event.set()
        self._on_work("")

    def notify_local(self, job_id: str, *, work: bool = False) -> None:
        """Wake those who wait in this process."""
        for event in (*self._waiting.get(job_id, ()), *self._waiting.get(ALL, ())):
            event.set()
        if work:
            for event in self._waiting.get(WORK, ()):
                event.set()
            self._on_work(job_id)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator["Subscription"]:
        """Subscribe to changes of a job, to WORK, or to ALL, from now on."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            yield Subscription(event)
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]


class Subscription:
    """The subscription of one waiter."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> None:
        """Return at the next change, at once if there was one since the last wait, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()
