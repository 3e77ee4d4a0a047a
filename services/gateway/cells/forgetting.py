"""Forgets cells that have been gone for so long that nobody expects them back, and has this one known in any case."""

import structlog

from services.common.db.retention import every_hour
from services.gateway.cells.model import Cell
from services.gateway.cells.store import CellStore

log = structlog.get_logger()


async def forget_in_time(cells: CellStore, here: Cell, after_seconds: float) -> None:
    """Look every hour, until cancelled."""

    async def gone() -> bool:
        await cells.know(here)  # it may have stood still for so long itself
        for cell_id in await cells.silent_for(after_seconds):
            log.warning("forgetting a cell that is gone", cell_id=cell_id)
            await cells.forget(cell_id)
        return False

    await every_hour("cells", gone)
