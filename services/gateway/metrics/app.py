"""Puts the gateway's metrics together."""

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.commit_events import on_commit
from services.common.metrics import Meters
from services.gateway.cells.model import Cell
from services.gateway.cells.store import CellStore
from services.gateway.metrics.counted import Counted
from services.gateway.metrics.standing import StandingMetrics
from services.gateway.metrics.store import StandingStore


def gateway_meters(engine: AsyncEngine, cells: CellStore, here: Cell) -> Meters:
    """Count what is written by way of `engine` from now on."""
    meters = Meters("gateway")
    on_commit(engine, Counted(meters.registry).hear)
    meters.add(StandingMetrics(StandingStore(engine, here.cell_id), cells, here))
    return meters
