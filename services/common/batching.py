"""Asks one question at a time, about all that has come meanwhile: a thousand who ask cost little more than one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from contextvars import copy_context
from itertools import islice
from typing import Generic, TypeVar

from services.common.turns import OURSELVES, set_current_turns

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Batches(Generic[Key, Answer]):
    """Answers by key. `ask` returns those that there are, of at most `most` keys; it uses the turns of `turns_of`.

    An answer is always of a question that begins after the key was asked for. `ask` sees no caller: what it returns, or
    raises, is for all who ask.
    """

    def __init__(
        self,
        ask: Callable[[Collection[Key]], Awaitable[Mapping[Key, Answer]]],
        *,
        most: int = 1000,
        turns_of: str = OURSELVES,
    ) -> None:
        self._ask = ask
        self._most = most
        self._turns_of = turns_of
        self._context = copy_context()
        self._unasked: dict[Key, asyncio.Future[Answer | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def answer(self, key: Key) -> Answer | None:
        """Return the next answer for a key; None where there is none."""
        # Shielded: who is cancelled must not cancel the answer that others wait for.
        return await asyncio.shield(self.future(key))

    def future(self, key: Key) -> "asyncio.Future[Answer | None]":
        """Return what will have the next answer for a key."""
        answer = self._unasked.get(key)
        if answer is None:
            answer = self._unasked[key] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all(), context=self._context.copy())
        return answer

    async def _ask_all(self) -> None:
        """Ask about all keys that wait, until none does."""
        set_current_turns(self._turns_of)
        try:
            while self._unasked:
                asked = {key: self._unasked.pop(key) for key in list(islice(self._unasked, self._most))}
                try:
                    found = await self._ask(asked)
                except Exception as error:  # noqa: BLE001 - it is for those who wait
                    for answer in asked.values():
                        answer.set_exception(error)
                        answer.exception()  # marks it as seen: its callers may be gone
                    continue
                for key, answer in asked.items():
                    answer.set_result(found.get(key))
        finally:
            self._asking = None
