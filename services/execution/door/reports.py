"""What the door tells its runner, each as a line of JSON on a pipe: what requests have used, outages, and notes."""

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, Protocol

from services.agent.asks import Reservation
from services.agent.providers import ModelWire
from services.execution.door.outages import Trouble

_SAME_NOTE_AGAIN_S: Final = 60.0
_NOTE_CHARACTERS: Final = 500
_MAX_NOTES: Final = 64
_GATES_BYTES: Final = 800


Gates = Sequence[Mapping[str, object]]
"""Gates of models, as JSON has them in events."""


class Reporter(Protocol):
    """Who is told."""

    async def sent(self, number: int, wire: ModelWire, fields: dict[str, object]) -> None:
        """Take that a request is being sent which may be billed: what its Usage event has if nothing follows of it."""

    async def unbilled(self, number: int) -> None:
        """Take that a request which was sent has got an answer that costs nothing."""

    async def usage(self, wire: ModelWire, fields: dict[str, object], number: int = 0) -> None:
        """Take what a request has used, that `number` was sent as: the fields of a Usage event, but for its cost."""

    async def trouble(self, trouble: Trouble | None) -> None:
        """Take why a model does not answer; None when it answers again."""

    async def note(self, text: str) -> None:
        """Take a line for people."""

    async def ask(self, ask_id: str, reservation: Reservation) -> None:
        """Take what a request may use, which waits for an answer."""

    async def ask_end(self, ask_id: str, *, is_use_unknown: bool, gates: Gates = ()) -> None:
        """Take that an ask is over without a Usage event, and the gates that it has found closed."""


class Reports:
    """Writes to a pipe. Whoever reports waits while the runner is busy: nothing that was used is left out."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._turn = asyncio.Lock()
        self._noted: dict[str, float] = {}

    async def sent(self, number: int, wire: ModelWire, fields: dict[str, object]) -> None:
        """Report a request before it is sent, so that it is known of even if this process is killed."""
        await self._write({"sent": number, "wire": wire, "fields": fields})

    async def unbilled(self, number: int) -> None:
        """Report that a request has cost nothing."""
        await self._write({"unbilled": number})

    async def usage(self, wire: ModelWire, fields: dict[str, object], number: int = 0) -> None:
        """Report what a request has used, by the fields of a Usage event."""
        await self._write({"usage": fields, "wire": wire, "number": number})

    async def trouble(self, trouble: Trouble | None) -> None:
        """Report why a model does not answer, or that it does again."""
        fields = trouble and {**asdict(trouble), "text": trouble.text[:_NOTE_CHARACTERS]}
        await self._write({"trouble": fields})

    async def note(self, text: str) -> None:
        """Report something for people, the same once a minute."""
        now = time.monotonic()
        if now < self._noted.get(text, now):
            return
        if len(self._noted) >= _MAX_NOTES:
            self._noted.clear()
        self._noted[text] = now + _SAME_NOTE_AGAIN_S
        await self._write({"note": text[:_NOTE_CHARACTERS]})

    async def ask(self, ask_id: str, reservation: Reservation) -> None:
        """Report what a request may use."""
        fields = asdict(reservation)
        ways = _fitting(fields.pop("ways"))
        await self._write({"ask": ask_id, "reservation": fields | {"ways": ways}})

    async def ask_end(self, ask_id: str, *, is_use_unknown: bool, gates: Gates = ()) -> None:
        """Report that an ask is over without a Usage event."""
        await self._write({"ask_end": ask_id, "is_use_unknown": is_use_unknown, "gates": _fitting(gates)})

    async def _write(self, report: dict[str, object]) -> None:
        # At most PIPE_BUF, so that it is written whole or not at all: texts have at most 600 characters together, of at
        # most 6 bytes (escaped ones of ASCII); beside gates, which have 800 bytes, at most 350.
        line = json.dumps(report, ensure_ascii=False).encode(errors="replace") + b"\n"
        async with self._turn:
            while True:
                try:
                    os.write(self._fd, line)
                except BlockingIOError:
                    await self._writable()
                else:
                    return

    async def _writable(self) -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._fd, event.set)
        try:
            await event.wait()
        finally:
            loop.remove_writer(self._fd)


def _fitting(gates: Gates) -> list[Mapping[str, object]]:
    """Return as many gates as fit into a report, beginning with the first."""
    left, fitting = _GATES_BYTES, []
    for gate in gates:
        left -= len(json.dumps(gate)) + 2
        if left < 0:
            break
        fitting.append(gate)
    return fitting
