"""Draining: before a server stops, streams and long polls end by themselves, and say where to resume.

Without it every open stream costs the whole grace of `stop`, and ends as "Cancelling all calls" (STYLE §4).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from services.common.errors import Unavailable

T = TypeVar("T")


class Draining:
    """Made once in `app.py`, and passed to the servicers that stream or wait, and to `serve`, which begins it."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._inside: set[asyncio.Timeout] = set()

    def is_set(self) -> bool:
        """True when draining has begun."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Wait until draining begins."""
        await self._begun.wait()

    def begin(self) -> None:
        """End all waits inside of `interrupting` and `stream`, now and from now on."""
        if not self._begun.is_set():
            self._begun.set()
            now = asyncio.get_running_loop().time()
            for scope in self._inside:
                scope.reschedule(now)

    @asynccontextmanager
    async def interrupting(self, resume_from: int | None = None) -> AsyncIterator[None]:
        """Interrupt what is awaited inside when draining begins, for long polls. Raises Unavailable (DRAINING)."""
        scope = asyncio.timeout(None)
        try:
            if self.is_set():
                raise _draining(resume_from)
            async with scope:
                self._inside.add(scope)
                yield
        except TimeoutError:
            if scope.expired():
                raise _draining(resume_from) from None
            raise
        finally:
            self._inside.discard(scope)

    async def stream(
        self, source: AsyncGenerator[T, None], *, start: int, position_after: Callable[[T], int]
    ) -> AsyncGenerator[T, None]:
        """Yield the items of `source`, from position `start`. Raises Unavailable (DRAINING) with where to resume.

        When the source raises Unavailable, the position is added to it. Only the wait for the next item is interrupted:
        an item that is being sent still arrives.
        """
        position = start
        async with aclosing(source):
            while True:
                async with self.interrupting(position):
                    try:
                        item = await anext(source)
                    except StopAsyncIteration:
                        return
                    except Unavailable as error:
                        raise error.at(position) from error
                yield item
                position = position_after(item)


def _draining(resume_from: int | None) -> Unavailable:
    return Unavailable("DRAINING", "the service is stopping: ask again", resume_from=resume_from)
