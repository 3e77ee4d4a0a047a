"""Forgets cells that have been gone for so long that nobody expects them back, and has this one known in any case."""

import asyncio

import structlog

from services.common.errors import ServiceError
from services.gateway.cells.model import Cell
from services.gateway.cells.store import CellStore

_EVERY_SECONDS = 3600.0

log = structlog.get_logger()


async def forget_in_time(cells: CellStore, here: Cell, after_seconds: float) -> None:
    """Look every hour, until cancelled. A database that is away is asked the next time."""
    while True:
        try:
            await cells.know(here)  # it may have stood still for so long itself
            for cell_id in await cells.silent_for(after_seconds):
                log.warning("forgetting a cell that is gone", cell_id=cell_id)
                await cells.forget(cell_id)
        except ServiceError as error:
            log.warning("cells that are gone are kept for now", error=str(error))
        await asyncio.sleep(_EVERY_SECONDS)
