"""How jobs and cells stand, as metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.gateway.cells.store import CellStore
from services.gateway.metrics.store import GaugeStore
from services.gateway.values.cells import Cell, CellState

_FRESH_SECONDS: Final = 2.0
_EVERYBODYS: Final = "Each cell on one database tells the same: take the max, not the sum."


class JobGauges:
    """Looks them up, at most every 2 s, however often it is asked."""

    def __init__(self, store: GaugeStore, cells: CellStore, here: Cell) -> None:
        self._store = store
        self._cells = cells
        self._here = here
        self._known: list[Metric] = []
        self._until = float("-inf")  # monotonic
        self._looking = asyncio.Lock()

    async def __call__(self) -> Iterable[Metric]:
        """See `Meters.add`."""
        async with self._looking:
            if time.monotonic() > self._until:
                self._known = await self._look()
                self._until = time.monotonic() + _FRESH_SECONDS
            return self._known

    async def _look(self) -> list[Metric]:
        readings = await self._store.look()
        jobs = GaugeMetricFamily(
            "boatyard_jobs", f"Jobs that have not ended, by kind and state. {_EVERYBODYS}", labels=["kind", "state"]
        )
        for (kind, state), count in sorted(readings.jobs.items()):
            jobs.add_metric([kind, state], count)
        cells = GaugeMetricFamily("boatyard_cells", f"Cells that are known, by state. {_EVERYBODYS}", labels=["state"])
        states = Counter(cell.state for cell in await self._cells.all())
        for state in CellState:
            cells.add_metric([state], states[state])
        return [
            jobs,
            cells,
            _gauge(
                "boatyard_queue_jobs",
                f"Jobs that could begin now, and wait for a slot. {_EVERYBODYS}",
                readings.waiting,
            ),
            _gauge(
                "boatyard_queue_oldest_seconds",
                f"How long the job has waited for a slot that has waited longest. {_EVERYBODYS}",
                readings.longest_wait_seconds,
            ),
            _gauge(
                "agent_checkpoints_pending",
                f"Checkpoints that wait for a person. {_EVERYBODYS}",
                readings.open_questions,
            ),
            _gauge("agent_worker_active_jobs", "Jobs that this cell carries now.", readings.running_here),
            _gauge("boatyard_cell_capacity_jobs", "Jobs that this cell carries at once, at most.", self._here.capacity),
            _gauge(
                "boatyard_cell_beat_age_seconds",
                "How long ago this cell has told the database that it is alive; at a lease's length it loses its jobs.",
                readings.beat_age_seconds,
            ),
        ]


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)
