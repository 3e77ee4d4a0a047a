"""The current number and state of jobs and cells, as metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.gateway.cells.store import CellStore
from services.gateway.metrics.store import GaugeStore
from services.gateway.metrics.totals import total_metrics
from services.gateway.metrics.usage import usage_metrics
from services.gateway.values.budgets import BudgetUse
from services.gateway.values.cells import Cell, CellState
from services.lifecycle.model.budgets import Spending

_FRESH_SECONDS: Final = 2.0
_SAME_ON_ALL_CELLS: Final = "Every cell on one database reports the same value: take the max, not the sum."


class JobGauges:
    """Reads the gauges from the database at most every 2 s, however often they are requested."""

    def __init__(self, store: GaugeStore, cells: CellStore, own_cell: Cell) -> None:
        self._store = store
        self._cells = cells
        self._own_cell = own_cell
        self._metrics: list[Metric] = []
        self._fresh_until = float("-inf")  # monotonic seconds
        self._lock = asyncio.Lock()

    async def __call__(self) -> Iterable[Metric]:
        """Return the gauges, for `Meters.add`."""
        async with self._lock:
            if time.monotonic() > self._fresh_until:
                self._metrics = await self._read()
                self._fresh_until = time.monotonic() + _FRESH_SECONDS
            return self._metrics

    async def _read(self) -> list[Metric]:
        readings = await self._store.read()
        jobs = GaugeMetricFamily(
            "boatyard_jobs",
            f"Jobs that have not ended, by kind and state. {_SAME_ON_ALL_CELLS}",
            labels=["kind", "state"],
        )
        for (kind, state), count in sorted(readings.jobs.items()):
            jobs.add_metric([kind, state], count)
        cells = GaugeMetricFamily("boatyard_cells", f"Known cells, by state. {_SAME_ON_ALL_CELLS}", labels=["state"])
        known = await self._cells.all()
        troubles = GaugeMetricFamily(
            "boatyard_cell_troubles", "What keeps this cell from taking new jobs, by reason.", labels=["reason"]
        )
        for reason, count in Counter(
            trouble.reason for cell in known if cell.cell_id == self._own_cell.cell_id for trouble in cell.troubles
        ).items():
            troubles.add_metric([reason], count)
        states = Counter(cell.state for cell in known)
        for state in CellState:
            cells.add_metric([state], states[state])
        return [
            *total_metrics(readings.tally),
            *_budget_metrics(readings.budgets),
            *usage_metrics(readings.usage),
            jobs,
            cells,
            troubles,
            _gauge(
                "boatyard_queue_jobs",
                f"Jobs that could begin now, but wait for a slot. {_SAME_ON_ALL_CELLS}",
                readings.waiting,
            ),
            _gauge(
                "boatyard_queue_oldest_seconds",
                f"Longest time that a job has been waiting for a slot. {_SAME_ON_ALL_CELLS}",
                readings.longest_wait_seconds,
            ),
            _gauge(
                "agent_checkpoints_pending",
                f"Checkpoints that wait for a person's decision. {_SAME_ON_ALL_CELLS}",
                readings.open_questions,
            ),
            _gauge("agent_worker_active_jobs", "Jobs that this cell is running now.", readings.running_here),
            _gauge("boatyard_cell_capacity_jobs", "Most jobs that this cell runs at once.", self._own_cell.capacity),
            _gauge(
                "boatyard_cell_beat_age_seconds",
                "Time since this cell's last heartbeat in the database; at the length of a lease it loses its jobs.",
                readings.beat_age_seconds,
            ),
        ]


def _budget_metrics(budgets: Mapping[str, BudgetUse]) -> Iterator[Metric]:
    for what, meaning in (("spent", "is spent"), ("reserved", "requests to models may need that have not ended")):
        text = f"What {meaning} of each budget in its present period, in usd, tokens and requests. {_SAME_ON_ALL_CELLS}"
        family = GaugeMetricFamily(f"boatyard_budget_{what}", text, labels=["budget_id", "unit"])
        for budget_id, use in sorted(budgets.items()):
            spending: Spending = getattr(use, what)
            family.add_metric([budget_id, "usd"], spending.cost_usd)
            family.add_metric([budget_id, "tokens"], spending.tokens)
            family.add_metric([budget_id, "requests"], spending.requests)
        yield family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)
