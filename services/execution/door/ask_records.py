"""The runner's end of what the door asks: each ask is written down for whoever answers it, and in the events."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from services.agent.asks import Reservation
from services.execution.eventlog import EventKind, EventWriter
from services.execution.inbox.asks import Asks


class AskRecords:
    """Records the asks of one execution."""

    def __init__(self, asks: Asks, writer: EventWriter) -> None:
        self.asks = asks
        self._writer = writer

    def ask(self, ask_id: str, reservation: Reservation) -> None:
        """Record an ask."""
        with contextlib.suppress(OSError):  # of a full disk: then it waits in vain, and is asked again
            self.asks.ask(ask_id, reservation)
        fields = {name: value for name, value in asdict(reservation).items() if value is not None}
        ways = [{"provider": way.provider, "key": way.key, "model": way.model} for way in reservation.ways]
        wire = f"MODEL_WIRE_{reservation.wire}"
        self._writer.fields(EventKind.ASK, ask_id=ask_id, reservation=fields | {"wire": wire, "ways": ways})

    def settled(self, ask_id: object) -> None:
        """Say that the use of an ask's request is recorded. Without an id there was none."""
        if ask_id:
            self.asks.end(str(ask_id))

    def end(self, ask_id: str, *, is_use_unknown: bool, gates: Sequence[Mapping[str, Any]] = ()) -> None:
        """Record that an ask is over whose use nobody records, and the gates that it has found closed."""
        learnt = {"gates": list(gates)} if gates else {}
        self._writer.fields(EventKind.ASK_END, ask_id=ask_id, is_use_unknown=is_use_unknown, **learnt)
        self.asks.end(ask_id)

    def end_all(self) -> None:
        """Record the end of what is still open, because the door was lost: what was granted may have been sent."""
        for ask_id, answer in self.asks.open():
            self.end(ask_id, is_use_unknown=answer is not None and answer.is_granted)
