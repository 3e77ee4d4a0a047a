"""Assembles the gateway's metrics."""

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.commit_events import on_commit
from services.common.metrics import Meters
from services.gateway.cells.store import CellStore
from services.gateway.metrics.counters import JobCounters
from services.gateway.metrics.gauges import JobGauges
from services.gateway.metrics.store import GaugeStore
from services.gateway.values.cells import Cell


def gateway_meters(engine: AsyncEngine, cells: CellStore, own_cell: Cell) -> Meters:
    """Return the meters; they count what is written through `engine` from now on."""
    meters = Meters("gateway")
    on_commit(engine, JobCounters(meters.registry).count)
    meters.add(JobGauges(GaugeStore(engine, own_cell.cell_id), cells, own_cell))
    return meters
