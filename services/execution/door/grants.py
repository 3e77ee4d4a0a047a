"""Whoever started an execution grants each of its requests before it is sent, if that was wanted."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from services.agent.asks import Reservation, ReservationAnswer
from services.execution.door import wires
from services.execution.door.outages import Trouble
from services.execution.door.reports import Reporter
from services.execution.inbox.asks import Asks

WAITS_S: Final = 300.0
"""How long a request waits until it is granted: clients wait longer than that, and it can be sent again."""

_SAID_AFTER_S: Final = 5.0
_LOOK_S: Final = 1.0
_RETRY_AFTER_S: Final = 10
_ID_BYTES: Final = 8


class NotGrantedError(Exception):
    """A request is not sent; `status` and `retry_after` (seconds; None: never) are what the agent is told."""

    def __init__(self, text: str, status: int, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


@dataclass(slots=True)
class Grant:
    """What one request was granted by, and what became of it. `ask_id` is empty when nothing had to be asked."""

    ask_id: str = ""
    is_last_warning: bool = False
    is_counted: bool = False
    """True when its ModelUsage is reported."""
    is_pending: bool = False
    """True while it has been sent, and nobody has begun to answer."""


class Grants:
    """Asks for each request, and says when it is over without having used anything."""

    def __init__(self, asks: Asks, reports: Reporter) -> None:
        self._asks = asks
        self._reports = reports
        self._bell: int | None = None
        self._rung = asyncio.Event()

    @asynccontextmanager
    async def granted(self, reservation: Reservation) -> AsyncIterator[Grant]:
        """Enter when a request may be sent. Raises NotGrantedError."""
        ask_id, answer = await self._until_granted(reservation)
        grant = Grant(ask_id, answer.is_last_warning)
        try:
            yield grant
        finally:
            if not grant.is_counted:
                await self._end(ask_id, is_use_unknown=grant.is_pending)

    async def _until_granted(self, reservation: Reservation) -> tuple[str, ReservationAnswer]:
        until = time.monotonic() + WAITS_S
        while True:
            ask_id = secrets.token_hex(_ID_BYTES)
            answer = None
            try:
                await self._reports.ask(ask_id, reservation)
                answer = await self._answer(ask_id, reservation, until)
            finally:
                if answer is None or not answer.is_granted:
                    await self._end(ask_id, is_use_unknown=False)
            if answer.is_granted:
                return ask_id, answer
            if answer.retry_time is None:
                text, status = answer.message or answer.reason, wires.REFUSED[reservation.wire]
                trouble = Trouble(text, reservation.provider, status, is_refusal=True, reason=answer.reason)
                await self._reports.trouble(trouble)
                raise NotGrantedError(text, status)
            await self._wait(reservation, answer, answer.retry_time, until)

    async def _answer(self, ask_id: str, reservation: Reservation, until: float) -> ReservationAnswer:
        said_at = time.monotonic() + _SAID_AFTER_S
        while True:
            rung = self._listen()
            if (answer := self._asks.answer_to(ask_id)) is not None:
                return answer
            now = time.monotonic()
            if now >= until:
                text = f"nobody has answered for {WAITS_S:.0f} s whether this request may be sent"
                raise NotGrantedError(text, 503, _RETRY_AFTER_S)
            if now >= said_at:
                said_at = until
                await self._reports.note(f"a request to {_named(reservation)} waits until somebody says that it may go")
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_S, until - now)):
                    await rung.wait()

    async def _wait(
        self, reservation: Reservation, answer: ReservationAnswer, retry_time: datetime, until: float
    ) -> None:
        """Wait until a request may be asked for again. Raises NotGrantedError when that takes too long."""
        seconds = max(0.0, (retry_time - datetime.now(UTC)).total_seconds())
        text = f"a request to {_named(reservation)} may go in {seconds:.0f} s: {answer.message or answer.reason}"
        await self._reports.note(text)
        if time.monotonic() + seconds > until:
            raise NotGrantedError(text, 429, int(seconds) + 1)
        await asyncio.sleep(seconds)

    async def _end(self, ask_id: str, *, is_use_unknown: bool) -> None:
        ending = asyncio.ensure_future(self._reports.ask_end(ask_id, is_use_unknown=is_use_unknown))
        await asyncio.shield(ending)

    def _listen(self) -> asyncio.Event:
        """Return what is set when the next answer has come."""
        if self._bell is None:
            self._bell = self._asks.bell()
            asyncio.get_running_loop().add_reader(self._bell, self._ring)
        return self._rung

    def _ring(self) -> None:
        if self._bell is not None:
            with suppress(BlockingIOError):
                os.read(self._bell, 4096)
        self._rung.set()
        self._rung = asyncio.Event()

    def close(self) -> None:
        """Listen no more."""
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell)
            os.close(self._bell)
            self._bell = None


def _named(reservation: Reservation) -> str:
    return reservation.model or reservation.provider
