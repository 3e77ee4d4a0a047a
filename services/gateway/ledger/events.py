"""Events in SQL, as coordinators send them. Works on bytes: nobody here needs to know what is in an event."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import NotFound, OutOfRange
from services.gateway.schema.clock import NOW
from services.gateway.schema.events import event_batches, event_logs
from services.gateway.schema.jobs import executions
from services.gateway.schema.sql import insert_if_absent
from services.gateway.values.events import EventLog, NumberedEvent
from services.lifecycle.model.states import ExecutionState

MAX_LOG_BYTES: Final = 64 << 20
"""The limit for one execution; beyond it, the oldest events are removed."""
_ROW_BYTES: Final = 256
"""What a row takes beside its events, so that many small batches are limited too."""
_CHUNK_BYTES: Final = 1 << 20


class EventStore:
    """Stores the events of coordinators' executions. Each method but `append` is one transaction."""

    def __init__(self, engine: AsyncEngine, max_log_bytes: int = MAX_LOG_BYTES) -> None:
        self._engine = engine
        self._max_log_bytes = max_log_bytes

    async def log(self, execution_id: str) -> EventLog | None:
        """Return which events of an execution are held; None when nobody has sent any."""
        async with self._engine.begin() as connection:
            row = (
                await connection.execute(select(event_logs).where(event_logs.c.execution_id == execution_id))
            ).first()
        return None if row is None else EventLog(row.first_sequence, row.next_sequence, row.is_complete)

    async def read(self, execution_id: str, first: int) -> tuple[bytes, int]:
        """Return some events, with number `first` among them if it is held, and the number that follows them.

        They may begin before `first`. At most about 1 MiB, or one batch; empty when nothing is held from there on.
        """
        query = (
            select(event_batches)
            .where(event_batches.c.execution_id == execution_id, event_batches.c.next_sequence > first)
            .order_by(event_batches.c.next_sequence)
        )
        chunks: list[bytes] = []
        size, following = 0, first
        async with self._engine.begin() as connection, connection.stream(query) as rows:
            async for row in rows:
                if chunks and size + row.size > _CHUNK_BYTES:
                    break
                chunks.append(row.data)
                size, following = size + row.size, row.next_sequence
        return b"".join(chunks), following

    async def append(
        self,
        connection: AsyncConnection,
        job_id: str,
        execution_id: str,
        events: Sequence[NumberedEvent],
        *,
        last: bool,
    ) -> int:
        """Store consecutive events; return the number of the next. Works inside the caller's transaction.

        Raises NotFound for an execution that is not the job's, and OutOfRange (EVENTS_OUT_OF_RANGE) when some are
        missing before the first.
        """
        await _begin_execution(connection, job_id, execution_id)
        fresh = {"execution_id": execution_id, "first_sequence": 1, "next_sequence": 1, "size": 0, "is_complete": False}
        await insert_if_absent(connection, event_logs, fresh)
        this = event_logs.c.execution_id == execution_id
        log = (await connection.execute(select(event_logs).where(this).with_for_update())).one()
        if events and events[0].sequence > log.next_sequence:
            raise OutOfRange(log.first_sequence, log.next_sequence, reason="EVENTS_OUT_OF_RANGE")
        new = [event for event in events if event.sequence >= log.next_sequence]
        following, size = log.next_sequence, log.size
        if new:
            data, following = b"".join(event.data for event in new), new[-1].sequence + 1
            batch = {"execution_id": execution_id, "next_sequence": following, "size": len(data), "data": data}
            await connection.execute(insert(event_batches).values(batch))
            size += len(data) + _ROW_BYTES
        first = log.first_sequence
        if size > self._max_log_bytes:
            first, size = await self._trim(connection, execution_id, first, size)
        changed = {"next_sequence": following, "size": size, "first_sequence": first}
        await connection.execute(
            update(event_logs).where(this).values(changed | {"is_complete": last or log.is_complete})
        )
        return int(following)

    async def _trim(self, connection: AsyncConnection, execution_id: str, first: int, size: int) -> tuple[int, int]:
        """Remove the oldest batches, down to three quarters of the limit: so not again with the very next batch."""
        of_execution = event_batches.c.execution_id == execution_id
        sizes = select(event_batches.c.next_sequence, event_batches.c.size).where(of_execution)
        for row in (await connection.execute(sizes.order_by(event_batches.c.next_sequence))).all():
            if size <= self._max_log_bytes * 3 // 4:
                break
            first, size = row.next_sequence, size - row.size - _ROW_BYTES
        await connection.execute(delete(event_batches).where(of_execution, event_batches.c.next_sequence <= first))
        return first, size


async def _begin_execution(connection: AsyncConnection, job_id: str, execution_id: str) -> None:
    """Check that the execution is the job's, and record that it has begun, because it has events. Raises NotFound."""
    this = (executions.c.execution_id == execution_id, executions.c.job_id == job_id)
    if (await connection.execute(select(executions.c.state).where(*this))).first() is None:
        raise NotFound("execution", execution_id)
    pending = update(executions).where(*this, executions.c.state == ExecutionState.PENDING)
    began = func.coalesce(executions.c.start_time, NOW)
    await connection.execute(pending.values(state=ExecutionState.RUNNING, start_time=began))
