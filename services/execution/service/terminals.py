"""Brings what callers type to an execution's terminal; what one caller types keeps its order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from services.common.db.fences import Fences
from services.common.errors import FailedPrecondition
from services.common.fence import current_fence
from services.execution.inbox.terminal_input import TerminalEvent, TerminalInput
from services.execution.model import Execution
from services.execution.service.manager import ExecutionManager, ended_already

_RETRY_S = 0.01


@dataclass(frozen=True, slots=True)
class InputProgress:
    """How many bytes of this caller's input have reached the terminal; `end` is set when the execution has ended."""

    bytes: int
    end: Execution | None = None


class Terminals:
    """Attaches callers to the terminals of executions."""

    def __init__(self, executions: ExecutionManager, fences: Fences) -> None:
        self._executions = executions
        self._fences = fences

    async def attach(
        self, execution_id: str, events: AsyncIterator[TerminalEvent]
    ) -> AsyncGenerator[InputProgress, None]:
        """Pass on `events` until they end, which detaches the caller, or until the execution ends.

        Raises:
            NotFound: there is no such execution.
            FailedPrecondition: STALE_FENCE, NO_TERMINAL, or EXECUTION_STATE.
        """
        await self._check(execution_id)
        ended = asyncio.create_task(self._executions.ended(execution_id))
        next_event: asyncio.Task[TerminalEvent | None] | None = None
        terminal = None
        sent = 0
        try:
            terminal = await self._terminal_input(execution_id, ended)
            while terminal is not None:
                yield InputProgress(sent)
                next_event = asyncio.create_task(_next(events))
                await asyncio.wait({next_event, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not next_event.done():
                    break
                if (event := next_event.result()) is None:
                    return
                sent += await _send(terminal, event, ended)
            await ended
            yield InputProgress(sent, await self._executions.get(execution_id))
        finally:
            for task in (ended, next_event):
                if task is not None:
                    task.cancel()
            if terminal is not None:
                terminal.close()

    async def _check(self, execution_id: str) -> None:
        await self._fences.check(current_fence())
        execution = await self._executions.get(execution_id)
        if execution.state.is_final:
            raise ended_already(execution)
        if not self._executions.run_directory(execution_id).terminal_input.exists():
            raise FailedPrecondition("NO_TERMINAL", f"execution {execution_id} has no terminal", execution_id)

    async def _terminal_input(self, execution_id: str, ended: asyncio.Task[None]) -> TerminalInput | None:
        """Open the pipe as soon as a runner listens; return None when the execution ends first."""
        while not ended.done():
            with suppress(BlockingIOError):
                return TerminalInput(self._executions.run_directory(execution_id).terminal_input)
            await asyncio.wait({ended}, timeout=_RETRY_S)
        return None


async def _next(events: AsyncIterator[TerminalEvent]) -> TerminalEvent | None:
    return await anext(events, None)


async def _send(terminal: TerminalInput, event: TerminalEvent, ended: asyncio.Task[None]) -> int:
    """Pass on a whole event, as fast as the program reads; return how many bytes of input were passed on."""
    if isinstance(event, tuple):
        await _send_part(terminal, event, ended)
        return 0
    sent = 0
    while sent < len(event) and not ended.done():
        sent += await _send_part(terminal, event[sent:], ended)
    return sent


async def _send_part(terminal: TerminalInput, event: TerminalEvent, ended: asyncio.Task[None]) -> int:
    while not ended.done():
        try:
            return terminal.send(event)
        except BlockingIOError:
            await asyncio.wait({ended}, timeout=_RETRY_S)
        except BrokenPipeError:  # the runner has ended, and `ended` follows in a moment
            await ended
    return 0
