"""Keeps the record of what this cell's node lets jobs choose."""

import asyncio
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import ServiceError
from services.gateway.cells.store import CellStore
from services.lifecycle.nodes import NodeInventory

_EVERY_SECONDS: Final = 15.0
_AGAIN_SECONDS: Final = 1.0

log = structlog.get_logger()


async def keep_allowance(cells: CellStore, cell_id: str, node: NodeInventory) -> None:
    """Record what the node allows, now and regularly until cancelled, as it may be restarted with other settings."""
    while True:
        try:
            await cells.set_allowance(cell_id, await node.allowance())
        except (ServiceError, SQLAlchemyError) as error:  # it, or the database, is away
            log.info("what the node allows is asked later", error=str(error))
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            await asyncio.sleep(_EVERY_SECONDS)
