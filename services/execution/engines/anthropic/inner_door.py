"""The model's door, served by the loop itself, so that what it uses is counted as that of any agent is."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

from services.agent.asks import Reservation
from services.agent.providers import ModelProvider, ModelWire
from services.execution.door.ask_records import AskRecords
from services.execution.door.outages import Trouble
from services.execution.door.prices import priced
from services.execution.door.reports import Gates
from services.execution.door.server import Door
from services.execution.door.tapes import Tapes
from services.execution.engines.anthropic.recorder import Recorder
from services.execution.netns import LOOPBACK, listening

_TOKEN_BYTES: Final = 32
_REPORTED_WITHIN_S: Final = 5.0


class InnerDoor:
    """A door on loopback, for this process alone, which knows its token."""

    def __init__(
        self,
        providers: Sequence[ModelProvider],
        recorder: Recorder,
        patience_s: float,
        tapes: Tapes,
        *,
        asks: AskRecords | None,
        first_byte_s: float,
    ) -> None:
        """`patience_s` is how long it waits for models that do not answer; `tapes` what it records and replays.

        `first_byte_s` is how long a provider may say nothing before a stream begins.
        With `asks`, each request is asked for before it is sent; what an earlier runner had asked is over.
        """
        self._providers = providers
        self._patience_s = patience_s
        self._first_byte_s = first_byte_s
        self._tapes = tapes
        self.outage: Trouble | None = None
        """Why models do not answer; None while they do, and before one was asked."""
        self._recorder = recorder
        self._asks = asks
        if asks is not None:
            asks.end_all()
        self._reported: set[str] = set()
        self._more = asyncio.Condition()
        self._serving: asyncio.Future[None] | None = None

    def open(self) -> tuple[str, str]:
        """Listen, and return the URL to ask at and the token to show there. Raises OSError."""
        listener, token = listening(LOOPBACK, 0), secrets.token_urlsafe(_TOKEN_BYTES)
        asks = None if self._asks is None else self._asks.asks
        door = Door(
            self._providers,
            token,
            self,
            self._patience_s,
            tapes=self._tapes,
            asks=asks,
            first_byte_s=self._first_byte_s,
        )
        self._serving = asyncio.ensure_future(door.serve(listener))
        return f"http://{LOOPBACK}:{listener.getsockname()[1]}", token

    async def sent(self, number: int, wire: ModelWire, fields: dict[str, object]) -> None:
        """Do nothing: who would be told of a killed door is killed with it."""

    async def unbilled(self, number: int) -> None:
        """Do nothing: see `sent`."""

    async def usage(self, wire: ModelWire, fields: dict[str, object], number: int = 0) -> None:
        """Record what a request has used."""
        del number
        request_id = self._recorder.usage(priced(wire, fields))
        if self._asks is not None:
            self._asks.settled(fields.get("ask_id"))
        async with self._more:
            self._reported.add(request_id)
            self._more.notify_all()

    async def trouble(self, trouble: Trouble | None) -> None:
        """Remember why models do not answer."""
        self.outage = trouble

    async def note(self, text: str) -> None:
        """Record a line for people."""
        self._recorder.note(text, "model")

    async def ask(self, ask_id: str, reservation: Reservation) -> None:
        """Record what a request may use, which waits for an answer."""
        if self._asks is not None:
            self._asks.ask(ask_id, reservation)

    async def ask_end(self, ask_id: str, *, is_use_unknown: bool, gates: Gates = ()) -> None:
        """Record that an ask is over without a Usage event."""
        if self._asks is not None:
            self._asks.end(ask_id, is_use_unknown=is_use_unknown, gates=gates)

    async def counted(self, request_id: str) -> None:
        """Wait until an answer that has arrived is counted, which takes a moment."""
        try:
            async with asyncio.timeout(_REPORTED_WITHIN_S), self._more:
                await self._more.wait_for(lambda: request_id in self._reported)
        except TimeoutError:
            pass  # it is counted when the door comes to it

    async def close(self) -> None:
        """End the door, when its last requests are counted."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
