"""Single flight: one piece of work at a time for each key; callers who ask for the same meanwhile share its outcome."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from services.git.model import Progress, ProgressListener

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.listeners: list[ProgressListener] = []
        self.is_given_up = False
        self.task: asyncio.Task[T]

    def report(self, progress: Progress) -> None:
        for listener in self.listeners:
            listener(progress)


class SingleFlight(Generic[T]):
    """Shares work between callers who want the same. It is cancelled when the last of them has stopped waiting."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def join(
        self,
        key: Hashable,
        work: Callable[[ProgressListener], Awaitable[T]],
        listener: ProgressListener = lambda _: None,
    ) -> T:
        """Return the outcome of the work under `key`; start it when none is running.

        `work` is passed a function that reports progress to every waiter's `listener`. What the work raises is raised
        to each waiter.
        """
        # A new caller must neither join work that is being cancelled, nor start the same work beside it.
        while (flight := self._flights.get(key)) is not None and flight.is_given_up:
            await asyncio.wait([flight.task])
        flight = flight or self._start(key, work)
        flight.listeners.append(listener)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.listeners.remove(listener)
            if not flight.listeners and not flight.task.done():
                flight.is_given_up = True
                flight.task.cancel()
                await asyncio.gather(flight.task, return_exceptions=True)

    def _start(self, key: Hashable, work: Callable[[ProgressListener], Awaitable[T]]) -> _Flight[T]:
        flight = _Flight[T]()

        async def run() -> T:
            return await work(flight.report)

        flight.task = asyncio.create_task(run())
        flight.task.add_done_callback(lambda _: self._flights.pop(key))
        self._flights[key] = flight
        return flight
