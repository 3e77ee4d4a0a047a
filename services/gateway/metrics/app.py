"""Puts the gateway's metrics together."""

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.commit_events import on_commit
from services.common.metrics import Meters
from services.gateway.cells.store import CellStore
from services.gateway.metrics.counters import JobCounters
from services.gateway.metrics.gauges import JobGauges
from services.gateway.metrics.store import GaugeStore
from services.gateway.values.cells import Cell


def gateway_meters(engine: AsyncEngine, cells: CellStore, here: Cell) -> Meters:
    """Count what is written by way of `engine` from now on."""
    meters = Meters("gateway")
    on_commit(engine, JobCounters(meters.registry).hear)
    meters.add(JobGauges(GaugeStore(engine, here.cell_id), cells, here))
    return meters
