"""Whoever started an execution grants each of its requests before it is sent, if that was wanted."""

import asyncio
import math
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final

from services.agent.asks import ModelGate, Reservation, ReservationAnswer
from services.execution.door import wires
from services.execution.door.outages import Outages, Trouble
from services.execution.door.reports import Reporter
from services.execution.inbox.asks import Asks

WAITS_S: Final = 300.0
"""How long a request waits until it is granted: clients wait longer than that, and it can be sent again."""

_SAID_AFTER_S: Final = 5.0
_LOOK_S: Final = 1.0
_ANSWERED_WITHIN_S: Final = 10.0
"""How long an answer is waited for that nobody has to give."""
_SILENT_S: Final = 60.0
"""For how long nothing is asked of somebody who did not answer, and does not have to."""
_SHORTEST_S: Final = 0.05
_RETRY_AFTER_S: Final = 10
_ID_BYTES: Final = 8


class NotGrantedError(Exception):
    """A request is not sent; `status` and `retry_after` (seconds; None: never) are what the agent is told."""

    def __init__(self, text: str, status: int, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class AskAgainError(Exception):
    """A request has to be asked for again, after `seconds`: what it was granted by is given back meanwhile."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(slots=True)
class Grant:
    """What one request was granted by, and what became of it. `ask_id` is empty when nothing had to be asked."""

    ask_id: str = ""
    closed: Trouble | None = None
    """Why it must not be sent now: whoever grants it knows that all its gates are closed."""
    found_closed: list[ModelGate] = field(default_factory=list)
    """The gates that its providers have closed."""
    is_last_warning: bool = False
    is_counted: bool = False
    """True when its ModelUsage is reported."""
    is_pending: bool = False
    """True while it has been sent, and nobody has begun to answer."""


class Grants:
    """Asks for each request, and says when it is over without having used anything.

    Where nobody has to answer, what nobody answers soon is sent, and nothing is asked for a while.
    """

    def __init__(self, asks: Asks, reports: Reporter, outages: Outages) -> None:
        self._asks = asks
        self._reports = reports
        self._outages = outages
        self._silent_until = 0.0
        self._bell: int | None = None
        self._rung = asyncio.Event()

    @asynccontextmanager
    async def granted(self, reservation: Reservation) -> AsyncIterator[Grant]:
        """Enter when a request may be sent, or why it must wait is known. Raises NotGrantedError."""
        grant = await self._until_granted(reservation)
        try:
            yield grant
        finally:
            if grant.ask_id and not grant.is_counted:
                await self._end(grant.ask_id, is_use_unknown=grant.is_pending, gates=grant.found_closed)

    async def _until_granted(self, reservation: Reservation) -> Grant:
        until = time.monotonic() + WAITS_S
        while self._asks.must_answer or time.monotonic() >= self._silent_until:
            ask_id = secrets.token_hex(_ID_BYTES)
            answer = None
            try:
                await self._reports.ask(ask_id, reservation)
                answer = await self._answer(ask_id, reservation, until)
            finally:
                if answer is None or not answer.is_granted:
                    await self._end(ask_id, is_use_unknown=False)
            if answer is None:  # whoever would answer is away
                self._silent_until = time.monotonic() + _SILENT_S
                break
            for gate in answer.gates:
                self._outages.close((gate.provider, gate.key, gate.model), _seconds_until(gate.open_time))
            if answer.is_granted:
                return Grant(ask_id, is_last_warning=answer.is_last_warning)
            if answer.retry_time is None:
                text, status = answer.message or answer.reason, wires.REFUSED[reservation.wire]
                trouble = Trouble(text, reservation.provider, status, is_refusal=True, reason=answer.reason)
                await self._reports.trouble(trouble)
                raise NotGrantedError(text, status)
            if answer.gates:
                pause_s = max(_SHORTEST_S, _seconds_until(answer.retry_time))
                return Grant(closed=Trouble(answer.message, answer.gates[0].provider, 429, pause_s=pause_s))
            await self._wait(reservation, answer, answer.retry_time, until)
        return Grant()

    async def _answer(self, ask_id: str, reservation: Reservation, until: float) -> ReservationAnswer | None:
        """Return the answer to an ask; None when none came soon and none has to. Raises NotGrantedError."""
        if not self._asks.must_answer:
            until = min(until, time.monotonic() + _ANSWERED_WITHIN_S)
        said_at = time.monotonic() + _SAID_AFTER_S
        while True:
            rung = self._listen()
            if (answer := self._asks.answer_to(ask_id)) is not None:
                return answer
            now = time.monotonic()
            if now >= until and not self._asks.must_answer:
                return None
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
        seconds = _seconds_until(retry_time)
        text = f"a request to {_named(reservation)} may go in {seconds:.0f} s: {answer.message or answer.reason}"
        await self._reports.note(text)
        if time.monotonic() + seconds > until:
            raise NotGrantedError(text, 429, int(seconds) + 1)
        await asyncio.sleep(seconds)

    async def _end(self, ask_id: str, *, is_use_unknown: bool, gates: Sequence[ModelGate] = ()) -> None:
        found = [asdict(gate) | {"open_time": _timestamp(gate.open_time)} for gate in gates]
        ending = asyncio.ensure_future(self._reports.ask_end(ask_id, is_use_unknown=is_use_unknown, gates=found))
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


def _seconds_until(time: datetime | None) -> float:
    return 0.0 if time is None else max(0.0, (time - datetime.now(UTC)).total_seconds())


def _timestamp(time: datetime | None) -> dict[str, int] | None:
    """Write a time as events have it: as the fields of a Timestamp."""
    return None if time is None else {"seconds": math.ceil(time.timestamp())}
