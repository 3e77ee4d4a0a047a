"""The providers of models that callers gave with their executions. They are in memory alone, because of their keys.

After a restart of the service they are gone, until the caller starts the same execution once more.
"""

import asyncio
from typing import Final

from services.agent.providers import ModelProvider

_COME_BACK_WITHIN_S: Final = 60.0


class GivenProviders:
    """What was given, by execution."""

    def __init__(self, within_s: float = _COME_BACK_WITHIN_S) -> None:
        """`within_s` is how long to wait for what is not there yet, or not any more."""
        self._within_s = within_s
        self._given: dict[str, tuple[ModelProvider, ...]] = {}
        self._more = asyncio.Condition()

    async def give(self, execution_id: str, providers: tuple[ModelProvider, ...]) -> None:
        """Remember the providers of an execution that has not ended."""
        if providers:
            self._given[execution_id] = providers
            async with self._more:
                self._more.notify_all()

    def forget(self, execution_id: str) -> None:
        """Forget those of an execution that has ended."""
        self._given.pop(execution_id, None)

    async def of(self, execution_id: str, *, are_needed: bool) -> tuple[ModelProvider, ...]:
        """Return the providers of an execution; when they are needed, wait for them for a while."""
        if are_needed:
            try:
                async with asyncio.timeout(self._within_s), self._more:
                    await self._more.wait_for(lambda: execution_id in self._given)
            except TimeoutError:
                pass  # its runner says what is missing
        return self._given.get(execution_id, ())
