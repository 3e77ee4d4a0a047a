"""Answers what an agent asks while it works, by the books of whoever grants it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from services.agent.asks import Reservation, ReservationAnswer
from services.lifecycle.books import AskEnd
from services.lifecycle.nodes.asks import AskBatch
from services.lifecycle.run import JobRun

_HELD_S: Final = 8.0
"""How long an answer is kept back that may still become better: the door waits at least ten seconds for one."""


@asynccontextmanager
async def answering(job: JobRun, execution_id: str) -> AsyncIterator[None]:
    """Answer while the block runs, and then until all that the execution has asked is settled.

    The block must last until the execution has ended.
    """
    following = asyncio.create_task(_follow(job, execution_id))
    try:
        yield
        await following
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow(job: JobRun, execution_id: str) -> None:
    try:
        async with asyncio.TaskGroup() as answers:
            await job.nodes.asks.follow(execution_id, _Asks(job, execution_id, answers).take)
    except BaseExceptionGroup as group:  # of which one has ended the others
        raise group.exceptions[0] from None


class _Asks:
    """What one execution has asked and is not over. Each ask is answered by a task of its own, as some have to wait."""

    def __init__(self, job: JobRun, execution_id: str, answers: asyncio.TaskGroup) -> None:
        self._job = job
        self._execution_id = execution_id
        self._answers = answers
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._open: dict[str, Reservation] = {}

    async def take(self, batch: AskBatch) -> None:
        """Settle what is over, and answer the rest: of earlier events, an earlier driver may have answered some."""
        self._open |= batch.asked
        for end in batch.ended:
            await self._settle(end)
        for ask_id, reservation in batch.asked.items():
            if ask_id in self._open:
                self._answering[ask_id] = self._answers.create_task(self._answer(ask_id, reservation))
        if batch.is_last:  # nobody has said how these ended
            for ask_id in list(self._open):
                await self._settle(AskEnd(ask_id, is_use_unknown=True))

    async def _answer(self, ask_id: str, reservation: Reservation) -> None:
        """Answer one ask, as soon as it is granted, refused, or has to wait for longer than its answer can."""
        job, until = self._job, asyncio.get_running_loop().time() + _HELD_S
        while True:
            answer = await job.retry_until_lease_lost(
                lambda: job.books.reserve(job.lease, self._execution_id, ask_id, reservation)
            )
            pause_s = _pause_s(answer)
            if pause_s is None or asyncio.get_running_loop().time() + pause_s > until:
                break
            await asyncio.sleep(pause_s)
        await job.nodes.asks.answer(self._execution_id, ask_id, answer)

    async def _settle(self, end: AskEnd) -> None:
        if (asked := self._open.pop(end.ask_id, None)) is None:  # it has ended before, in another event
            return
        if (answering := self._answering.pop(end.ask_id, None)) is not None:
            answering.cancel()  # if it waits still: nobody hears it any more
            await asyncio.wait([answering])
        job, counted = self._job, end.at_least(asked)
        await job.retry_until_lease_lost(lambda: job.books.settle(job.lease, self._execution_id, counted))


def _pause_s(answer: ReservationAnswer) -> float | None:
    """Return in how many seconds it may be asked again; None for an answer that will not change."""
    if answer.is_granted or answer.retry_time is None:
        return None
    return max(0.0, (answer.retry_time - datetime.now(UTC)).total_seconds())
