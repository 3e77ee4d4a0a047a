"""Metrics: how much disk mirrors, bases and results take, and how long fetches take."""

import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.git.disk.budget import DiskBudget, DiskUsage

_SECONDS: Final = (0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0)
_FRESH_SECONDS: Final = 30.0


def fetch_seconds(registry: CollectorRegistry) -> Histogram:
    """Make the histogram of how long fetches took."""
    return Histogram(
        "boatyard_git_fetch_seconds",
        "How long fetches of mirrors took that succeeded, first ones too, without the wait for their turn.",
        buckets=_SECONDS,
        registry=registry,
    )


class DiskMetrics:
    """Measures at most every 30 s, because measuring walks over every mirror and base. See `Meters.add`."""

    def __init__(self, budget: DiskBudget) -> None:
        self._budget = budget
        self._latest: list[Metric] = []
        self._until = float("-inf")  # monotonic

    async def __call__(self) -> Iterable[Metric]:
        """Return the metrics of the latest measurement."""
        if time.monotonic() > self._until:
            self._latest = _metrics(await self._budget.usage())
            self._until = time.monotonic() + _FRESH_SECONDS
        return self._latest


def _metrics(usage: DiskUsage) -> list[Metric]:
    bases = [base for repository in usage.repositories for base in repository.bases]
    mirrors = [repository.mirror_bytes for repository in usage.repositories if repository.mirror_bytes]
    kept = GaugeMetricFamily(
        "boatyard_git_disk_bytes", "What mirrors, bases and results take of the disk.", labels=["what"]
    )
    kept.add_metric(["mirrors"], sum(mirrors))
    kept.add_metric(["bases"], sum(base.bytes for base in bases))
    kept.add_metric(["results"], sum(repository.results_bytes for repository in usage.repositories))
    evicted = CounterMetricFamily(
        "boatyard_git_evictions", "Bases and mirrors that were removed to make room.", labels=["what"]
    )
    evicted.add_metric(["bases"], usage.evicted_bases)
    evicted.add_metric(["mirrors"], usage.evicted_mirrors)
    return [
        kept,
        evicted,
        GaugeMetricFamily("boatyard_git_mirrors", "Mirrors that are there.", value=len(mirrors)),
        GaugeMetricFamily("boatyard_git_bases", "Base trees that are there.", value=len(bases)),
        GaugeMetricFamily(
            "boatyard_git_disk_budget_bytes",
            "How much mirrors, bases and results may take; 0 is any.",
            value=usage.budget_bytes,
        ),
    ]
