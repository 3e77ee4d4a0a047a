"""Typing on an execution's terminal, from anywhere: each caller hands over what it has, in its order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from services.common.db.fences import Fences
from services.common.errors import FailedPrecondition
from services.common.fence import current_fence
from services.execution.inbox.terminal_input import Keyboard, Typed
from services.execution.model import Execution
from services.execution.service.manager import ExecutionManager, ended_already

_RETRY_S = 0.01


@dataclass(frozen=True, slots=True)
class Taken:
    """How many bytes of this caller's input are with the terminal; `end` is there when the execution has ended."""

    bytes: int
    end: Execution | None = None


class Attaching:
    """Brings what is typed to executions."""

    def __init__(self, executions: ExecutionManager, fences: Fences) -> None:
        self._executions = executions
        self._fences = fences

    async def attach(self, execution_id: str, typed: AsyncIterator[Typed]) -> AsyncGenerator[Taken, None]:
        """Hand over what comes until it ends, which detaches, or until the execution does.

        Raises:
            NotFound: there is no such execution.
            FailedPrecondition: STALE_FENCE, NO_TERMINAL, or EXECUTION_STATE.
        """
        await self._check(execution_id)
        ended = asyncio.create_task(self._executions.ended(execution_id))
        coming: asyncio.Task[Typed | None] | None = None
        keyboard = None
        taken = 0
        try:
            keyboard = await self._keyboard(execution_id, ended)
            while keyboard is not None:
                yield Taken(taken)
                coming = asyncio.create_task(_next(typed))
                await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    break
                if (item := coming.result()) is None:
                    return
                taken += await _type(keyboard, item, ended)
            await ended
            yield Taken(taken, await self._executions.get(execution_id))
        finally:
            for task in (ended, coming):
                if task is not None:
                    task.cancel()
            if keyboard is not None:
                keyboard.close()

    async def _check(self, execution_id: str) -> None:
        await self._fences.check(current_fence())
        execution = await self._executions.get(execution_id)
        if execution.state.is_final:
            raise ended_already(execution)
        if not self._executions.run_directory(execution_id).keyboard.exists():
            raise FailedPrecondition("NO_TERMINAL", f"execution {execution_id} has no terminal", execution_id)

    async def _keyboard(self, execution_id: str, ended: asyncio.Task[None]) -> Keyboard | None:
        """Open the pipe as soon as a runner listens; None when the execution ends before."""
        while not ended.done():
            with suppress(BlockingIOError):
                return Keyboard(self._executions.run_directory(execution_id).keyboard)
            await asyncio.wait({ended}, timeout=_RETRY_S)
        return None


async def _next(typed: AsyncIterator[Typed]) -> Typed | None:
    return await anext(typed, None)


async def _type(keyboard: Keyboard, typed: Typed, ended: asyncio.Task[None]) -> int:
    """Hand over all of it, as fast as the program takes it; return how many bytes of input that were."""
    if isinstance(typed, tuple):
        await _hand_over(keyboard, typed, ended)
        return 0
    done = 0
    while done < len(typed) and not ended.done():
        done += await _hand_over(keyboard, typed[done:], ended)
    return done


async def _hand_over(keyboard: Keyboard, typed: Typed, ended: asyncio.Task[None]) -> int:
    while not ended.done():
        try:
            return keyboard.type(typed)
        except BlockingIOError:
            await asyncio.wait({ended}, timeout=_RETRY_S)
        except BrokenPipeError:  # the runner has ended, which is told in a moment
            await ended
    return 0
