"""What the models of a running execution have used so far, by its events."""

import asyncio
import contextlib

from services.execution.eventlog import DamagedRecordError, EventKind, EventReader
from services.execution.eventlog.activity import ModelActivity
from services.execution.model import ModelUse
from services.execution.rundir.directory import RunDirectory

_MOST_BYTES_AT_ONCE = 64 << 20


class LiveUse:
    """Counts the events of one run. Each look reads what is new since the last one, at most 64 MiB of it."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._activity = ModelActivity()
        self._position: tuple[int, int] | None = None
        self._turn = asyncio.Lock()

    async def so_far(self) -> ModelUse | None:
        """Return what is known now; None as long as no model was used."""
        async with self._turn:
            await asyncio.shield(asyncio.to_thread(self._read))
        use = self._activity.model_use()
        return use if use.usage else None

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError, DamagedRecordError), EventReader(self._run.events) as reader:
            if self._position is not None:
                reader.offset, reader.next_sequence = self._position
            until = reader.offset + _MOST_BYTES_AT_ONCE
            while reader.offset < until and (records := reader.read()):
                for record in records:
                    if record.kind is not EventKind.OUTPUT:
                        self._activity.take(record.kind, record.fields(), record.time_ns)
                self._position = reader.offset, reader.next_sequence
