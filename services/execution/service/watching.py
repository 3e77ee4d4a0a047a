"""Viewers of an event log. Each reads the file at its own position, so a slow one delays nobody else."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from services.common.errors import OutOfRange
from services.execution.eventlog import EventKind, EventReader, Record
from services.execution.model import Execution
from services.execution.rundir.directory import RunDirectory
from services.execution.service.manager import ExecutionManager

_BATCH_BYTES = 512 * 1024
_HEARTBEAT_S = 10.0
_POLL_S = (0.004, 0.05)
_POLL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some records, in order; `end` is set in the last batch of a log that was followed to its end."""

    next_sequence: int
    """Where to go on; with a filter it may be far beyond the last of the records."""
    records: list[Record] = field(default_factory=list)
    end: Execution | None = None


async def watch(
    executions: ExecutionManager,
    execution_id: str,
    from_sequence: int,
    *,
    follow: bool,
    kinds: frozenset[EventKind] = frozenset(),
) -> AsyncGenerator[EventBatch, None]:
    """Yield an execution's events from `from_sequence` (1 is the first), only of `kinds` if there are any.

    A batch without records is a heartbeat.

    Raises:
        NotFound: there is no such execution.
        OutOfRange: EVENTS_OUT_OF_RANGE when it ended before `from_sequence`; EVENTS_TRIMMED when its events are gone.
    """
    execution = await executions.get(execution_id)
    _refuse_gap(execution, from_sequence)
    if execution.state.is_final and from_sequence > execution.last_sequence + 1:
        raise OutOfRange(1, execution.last_sequence + 1, reason="EVENTS_OUT_OF_RANGE")
    view = _View(executions.run_directory(execution_id), from_sequence, kinds)
    try:
        async with aclosing(view.batches(executions, execution_id, follow=follow)) as batches:
            async for batch in batches:
                yield batch
    finally:
        await view.close()
    execution = await executions.get(execution_id)
    _refuse_gap(execution, view.next_sequence)  # they were removed while we were about to read them
    if follow:
        yield EventBatch(view.next_sequence, end=execution)


def _refuse_gap(execution: Execution, next_sequence: int) -> None:
    if execution.events_trimmed and next_sequence <= execution.last_sequence:
        raise OutOfRange(execution.last_sequence + 1, execution.last_sequence + 1, reason="EVENTS_TRIMMED")


class _View:
    """One viewer's position in one log."""

    def __init__(self, run: RunDirectory, next_sequence: int, kinds: frozenset[EventKind]) -> None:
        self.next_sequence = next_sequence
        self._kinds = kinds
        self._run = run
        self._reader: EventReader | None = None
        self._reading: asyncio.Task[list[Record]] | None = None

    async def batches(
        self, executions: ExecutionManager, execution_id: str, *, follow: bool
    ) -> AsyncGenerator[EventBatch, None]:
        """Yield the events that there are, and with `follow` those to come, until the execution has ended."""
        quiet_since = sent_at = time.monotonic()
        while True:
            ended = executions.has_ended(
                execution_id
            )  # asked before reading, so that the read sees all that was written before the end
            records = await self._read()
            now = time.monotonic()
            if records:
                self.next_sequence = records[-1].sequence + 1
                quiet_since = now
                chosen = [record for record in records if record.kind in self._kinds] if self._kinds else records
                if chosen or now - sent_at >= _HEARTBEAT_S:
                    sent_at = now
                    yield EventBatch(self.next_sequence, chosen)
                if sum(len(record.payload) for record in records) < _BATCH_BYTES // 2:
                    # Nothing more is there yet: many small messages of a flood would cost more than this delay.
                    await executions.ended_within(execution_id, _POLL_S[0])
            elif ended or not follow:
                return
            else:
                if now - sent_at >= _HEARTBEAT_S:
                    sent_at = now
                    yield EventBatch(self.next_sequence)
                await executions.ended_within(execution_id, _interval(now - quiet_since))

    async def close(self) -> None:
        """Close the file, but first wait for a read that a cancelled call may have left in its thread."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        if self._reader is not None:
            self._reader.close()

    async def _read(self) -> list[Record]:
        if self._reader is not None and self._reader.next_sequence == self.next_sequence:
            # What was just written is in memory. Read it in this thread: another one would cost more than the read.
            with suppress(BlockingIOError):
                return self._reader.read(_BATCH_BYTES, wait=False)
        self._reading = asyncio.create_task(asyncio.to_thread(self._read_now))
        return await asyncio.shield(self._reading)

    def _read_now(self) -> list[Record]:
        if self._reader is None:
            try:
                self._reader = EventReader(self._run.events)
            except FileNotFoundError:
                return []
        if not self._reader.skip_to(self.next_sequence):
            return []
        return self._reader.read(_BATCH_BYTES)


def _interval(quiet_s: float) -> float:
    """Return how long to wait before the next look: a tenth of the silence so far. Polling needs no watch on files."""
    shortest, longest = _POLL_S
    return min(max(shortest, quiet_s * _POLL_SHARE), longest)
