"""Reads the recording of what an execution's agent asked of models, also while it is being written."""

import asyncio
import os
from collections.abc import AsyncGenerator

from services.common.errors import NotFound, OutOfRange
from services.execution.service.manager import ExecutionManager

_PIECE_BYTES = 64 * 1024


async def read(executions: ExecutionManager, execution_id: str, offset: int) -> AsyncGenerator[tuple[bytes, int], None]:
    """Yield a recording from an offset on, as far as there is one now, each piece with the offset after it.

    Raises NotFound for an execution that there is not, or that is not recorded; OutOfRange.
    """
    execution = await executions.get(execution_id)
    path = executions.run_directory(execution_id).recording
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        gone = (
            "it was removed with the events"
            if execution.events_trimmed
            else "the job was not run with --record (AgentSettings.record), or its agent had no provider"
        )
        raise NotFound("recording", execution_id, because=gone) from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if offset > size:
            raise OutOfRange(0, size)
        file.seek(offset)
        while data := await asyncio.to_thread(file.read, _PIECE_BYTES):
            offset += len(data)
            yield data, offset
