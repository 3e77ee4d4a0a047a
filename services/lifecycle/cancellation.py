"""Work that people may cancel: what is left then, and what is done all the same."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from services.lifecycle.failures import JobCancelled

T = TypeVar("T")


class Cancellable:
    """Knows whether somebody has cancelled the work, and how much of it is to be done even so."""

    def __init__(self) -> None:
        self._cancelled = asyncio.Event()
        self._uninterrupted = 0
        self._is_told_of_cancel = False

    def cancel(self) -> None:
        """Let the work know that it is cancelled."""
        self._cancelled.set()

    @property
    def cancel_requested(self) -> bool:
        """True when somebody has cancelled the job."""
        return self._cancelled.is_set()

    async def unless_cancelled(self, work: Awaitable[T], *, grace_seconds: float = 0) -> T:
        """Wait for `work`, and cancel it when the job is cancelled and the grace is over. Raises JobCancelled.

        Inside of `uninterrupted` too: a grace is for what should not be left out, but may last as an agent likes.
        Inside of `told_of_cancel`, `work` has the time that it needs.
        """
        if self._is_told_of_cancel:
            return await work
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and grace_seconds:
                await asyncio.wait({task}, timeout=grace_seconds)
            if not task.done():
                raise JobCancelled
            return await task
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                # It must release what it holds before anything else begins; how it ends does not matter.
                await asyncio.gather(task, return_exceptions=True)

    async def interruptible(self, work: Awaitable[T]) -> T:
        """Wait for `work` like `unless_cancelled`, but to its end inside of `uninterrupted`."""
        return await (work if self._uninterrupted else self.unless_cancelled(work))

    async def pause(self, seconds: float) -> None:
        """Wait before a retry, unless the job is cancelled."""
        await self.interruptible(asyncio.sleep(seconds))

    def check_cancelled(self) -> None:
        """Raise JobCancelled when the job is cancelled, except inside of `uninterrupted`."""
        if self.cancel_requested and not self._uninterrupted:
            raise JobCancelled

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Run the block to its end, even when the job is cancelled."""
        self._uninterrupted += 1
        try:
            yield
        finally:
            self._uninterrupted -= 1

    @contextmanager
    def told_of_cancel(self) -> Iterator[None]:
        """Run the block, which is done because the job is cancelled, to its end."""
        self._is_told_of_cancel = True
        try:
            with self.uninterrupted():
                yield
        finally:
            self._is_told_of_cancel = False
