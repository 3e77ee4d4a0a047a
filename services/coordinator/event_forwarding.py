"""Forwards the events of this machine's executions to a gateway as they come; by number, so none is sent twice."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from services.common.errors import DeadlineExceeded, Exhausted, NotFound, ServiceError, Unavailable
from services.coordinator.clients import EventBatch, LocalEvents
from services.lifecycle.ledger import Lease, LeaseLost, LedgerUnavailable

_LINGER_SECONDS: Final = 0.2
"""How long events are batched: a program that writes line by line causes at most five writes a second."""
_BATCH_BYTES: Final = 512 << 10
_RETRY_SECONDS: Final = 1.0
_FLUSH_SECONDS: Final = 10.0
_REMEMBERED: Final = 1000

log = structlog.get_logger()


class SendEvents(Protocol):
    """Sends events of an execution, and returns the number of the next one; without events, only asks for it."""

    def __call__(self, lease: Lease, execution_id: str, events: EventBatch) -> Awaitable[int]:
        """Raises LeaseLost, LedgerUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class _Forwarding:
    lease: Lease
    task: asyncio.Task[None]


class EventForwarder:
    """Runs a task for each execution until its last event is sent, or its job belongs to another cell."""

    def __init__(self, send: SendEvents, local: LocalEvents) -> None:
        self._send = send
        self._local = local
        self._forwardings: OrderedDict[str, _Forwarding] = OrderedDict()

    def follow(self, lease: Lease, execution_id: str) -> None:
        """Send an execution's events under a lease, from the number that the gateway needs. May be repeated."""
        known = self._forwardings.get(execution_id)
        if known is not None and known.lease.fence >= lease.fence:
            return
        if known is not None:
            known.task.cancel()
        task = asyncio.create_task(self._forward(lease, execution_id), name=f"events of {execution_id}")
        self._forwardings[execution_id] = _Forwarding(lease, task)
        for finished in [name for name, each in self._forwardings.items() if each.task.done()][:-_REMEMBERED]:
            del self._forwardings[finished]

    async def flush(self, job_id: str) -> None:
        """Wait a while until a job's last events are sent. Call it after all its executions have ended."""
        tasks = [each.task for each in self._forwardings.values() if each.lease.job_id == job_id]
        if tasks:
            await asyncio.wait(tasks, timeout=_FLUSH_SECONDS)

    async def stop(self) -> None:
        """Stop sending. The next forwarder of an execution continues from the number that the gateway needs."""
        tasks = [each.task for each in self._forwardings.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, lease: Lease, execution_id: str) -> None:
        while True:
            try:
                if await self._forward_once(lease, execution_id):
                    return
            except LeaseLost:
                return
            except (LedgerUnavailable, Unavailable, DeadlineExceeded) as error:
                log.info("sending events is delayed", execution_id=execution_id, error=str(error))
            except NotFound:  # it was recorded, and never started
                return
            except ServiceError as error:
                if isinstance(error, Exhausted) and error.retry_after is not None:  # a service of ours is busy
                    await asyncio.sleep(error.retry_after)
                    continue
                log.warning("cannot send events", execution_id=execution_id, reason=error.reason, error=error.message)
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _forward_once(self, lease: Lease, execution_id: str) -> bool:
        """Send the events that there are; return True when the last one was sent."""
        position = await self._send(lease, execution_id, EventBatch((), is_last=False))
        async with aclosing(batched(self._local.of(execution_id, position))) as batches:
            async for batch in batches:
                await self._send(lease, execution_id, batch)
                if batch.is_last:
                    return True
        return False


async def batched(source: AsyncGenerator[EventBatch, None]) -> AsyncGenerator[EventBatch, None]:
    """Yield events that arrive within a moment as one batch, without heartbeats; also those before a failure."""
    async with aclosing(source):
        coming = asyncio.ensure_future(anext(source, None))
        try:
            while (first := await coming) is not None:
                batch, until = [first], asyncio.get_running_loop().time() + _LINGER_SECONDS
                coming = asyncio.ensure_future(anext(source, None))
                while not batch[-1].is_last and _size(batch) < _BATCH_BYTES:
                    following = await _next_before(coming, until)
                    if following is None:
                        break
                    batch.append(following)
                    coming = asyncio.ensure_future(anext(source, None))
                merged = EventBatch(tuple(event for each in batch for event in each.events), batch[-1].is_last)
                if merged.events or merged.is_last:
                    yield merged
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _next_before(next_one: "asyncio.Future[EventBatch | None]", until: float) -> EventBatch | None:
    """Return the next batch if it comes before `until`, by the loop's clock. Does not raise its failure."""
    remaining = until - asyncio.get_running_loop().time()
    done, _ = await asyncio.wait({next_one}, timeout=max(0.0, remaining))
    return next_one.result() if done and next_one.exception() is None else None


def _size(batch: Sequence[EventBatch]) -> int:
    return sum(event.ByteSize() for each in batch for event in each.events)
