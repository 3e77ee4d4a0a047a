"""Events are sent each once, in order, and few at a time, whatever goes away meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from boatyard.execution.v1.event_pb2 import Event

from services.common.errors import Unavailable
from services.coordinator.clients import EventBatch
from services.coordinator.event_forwarding import EventForwarder, batched
from services.lifecycle.ledger import Lease, LeaseLost, LedgerUnavailable
from services.lifecycle.model.job_spec import JobSpec

ORDER = JobSpec("job-1", "default", "task", "Do it.", "Do it.", datetime.now(UTC))


def lease(fence: int = 1) -> Lease:
    return Lease("job-1", fence, 1, "exec-1", ORDER)


class Here:
    """An execution of so many events, whose service is away after every third."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def of(self, execution_id: str, first: int) -> AsyncGenerator[EventBatch, None]:
        for number in range(first, self._count + 1):
            yield EventBatch((Event(sequence=number),), is_last=False)
            yield EventBatch((), is_last=False)
            if number % 3 == 0:
                raise Unavailable("DRAINING", "the service is stopping")
        yield EventBatch((), is_last=True)


class There:
    """A gateway that loses every third answer, and keeps what it has not."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.is_complete = False
        self.holder = 1
        self._calls = 0

    async def append(self, held: Lease, execution_id: str, events: EventBatch) -> int:
        if held.fence < self.holder:
            raise LeaseLost
        for event in events.events:
            assert event.sequence <= len(self.kept) + 1, "a gap"
            if event.sequence > len(self.kept):
                self.kept.append(event.sequence)
        self.is_complete = self.is_complete or events.is_last
        self._calls += 1
        if self._calls % 3 == 0:
            raise LedgerUnavailable("its answer was lost")
        return len(self.kept) + 1


async def test_events_arrive_once_over_a_bad_link(monkeypatch) -> None:
    monkeypatch.setattr("services.coordinator.event_forwarding._RETRY_SECONDS", 0.0)
    there = There()
    forwarder = EventForwarder(there.append, Here(10))
    for _ in range(3):  # it is noted again and again
        forwarder.follow(lease(), "exec-1")
    await forwarder.flush("job-1")
    assert there.kept == list(range(1, 11))
    assert there.is_complete


async def test_who_lost_the_lease_sends_no_more_and_the_next_one_goes_on(monkeypatch) -> None:
    monkeypatch.setattr("services.coordinator.event_forwarding._RETRY_SECONDS", 0.0)
    there = There()
    there.holder = 2
    forwarder = EventForwarder(there.append, Here(2))
    forwarder.follow(lease(), "exec-1")
    await forwarder.flush("job-1")
    assert there.kept == []
    forwarder.follow(lease(2), "exec-1")
    await forwarder.flush("job-1")
    assert there.kept == [1, 2]


async def test_what_comes_together_is_sent_together() -> None:
    arrived = asyncio.Event()

    async def lines() -> AsyncGenerator[EventBatch, None]:
        for number in range(1, 6):
            yield EventBatch((Event(sequence=number),), is_last=False)
        await arrived.wait()
        yield EventBatch((), is_last=False)
        yield EventBatch((), is_last=True)

    batches = batched(lines())
    first = await anext(batches)
    assert [event.sequence for event in first.events] == [1, 2, 3, 4, 5]
    arrived.set()
    assert [batch.is_last async for batch in batches] == [True]
