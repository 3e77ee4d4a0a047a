"""Answers what an agent asks while it works, by the books of whoever grants it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.agent.asks import Reservation
from services.lifecycle.books import AskEnd
from services.lifecycle.nodes.asks import AskBatch
from services.lifecycle.run import JobRun


@asynccontextmanager
async def answering(job: JobRun, execution_id: str) -> AsyncIterator[None]:
    """Answer while the block runs, and then until all that the execution has asked is settled.

    The block must last until the execution has ended.
    """
    following = asyncio.create_task(job.nodes.asks.follow(execution_id, _Asks(job, execution_id).take))
    try:
        yield
        await following
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class _Asks:
    """What one execution has asked and is not over."""

    def __init__(self, job: JobRun, execution_id: str) -> None:
        self._job = job
        self._execution_id = execution_id
        self._open: dict[str, Reservation] = {}

    async def take(self, batch: AskBatch) -> None:
        """Settle what is over, and answer the rest: of earlier events, an earlier driver may have answered some."""
        self._open |= batch.asked
        for end in batch.ended:
            await self._settle(end)
        for ask_id, reservation in batch.asked.items():
            if ask_id in self._open:
                await self._answer(ask_id, reservation)
        if batch.is_last:  # nobody has said how these ended
            for ask_id in list(self._open):
                await self._settle(AskEnd(ask_id, is_use_unknown=True))

    async def _answer(self, ask_id: str, reservation: Reservation) -> None:
        job = self._job
        answer = await job.retry_until_lease_lost(
            lambda: job.books.reserve(job.lease, self._execution_id, ask_id, reservation)
        )
        await job.nodes.asks.answer(self._execution_id, ask_id, answer)

    async def _settle(self, end: AskEnd) -> None:
        if (asked := self._open.pop(end.ask_id, None)) is not None:  # otherwise it has ended before, in another event
            job, counted = self._job, end.at_least(asked)
            await job.retry_until_lease_lost(lambda: job.books.settle(job.lease, self._execution_id, counted))
