"""Metrics: how many workspaces there are, in which states, and how much disk they use."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.workspace.model import Workspace
from services.workspace.store import WorkspaceRemoved, WorkspaceStore
from services.workspace.usage import UsageMeter


class WorkspaceCounts:
    """Counts workspaces that are made and removed: see `common.db.commit_events`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._made = Counter(
            "boatyard_workspaces_made", "Workspaces made, by their driver.", ["driver"], registry=registry
        )
        self._removed = Counter(
            "boatyard_workspaces_removed", "Workspaces removed, by a call or a sweep.", registry=registry
        )

    def count(self, fact: object) -> None:
        """Count a workspace that was recorded or removed."""
        match fact:
            case Workspace():
                self._made.labels(fact.driver).inc()
            case WorkspaceRemoved():
                self._removed.inc()


class WorkspaceMetrics:
    """Reads the records, and the last measurement, which is made once a minute."""

    def __init__(self, store: WorkspaceStore, meter: UsageMeter) -> None:
        self._store = store
        self._usage = meter

    async def __call__(self) -> Iterable[Metric]:
        """See `Meters.add`."""
        there = GaugeMetricFamily(
            "boatyard_workspaces", "Workspaces that are there, by state and driver.", labels=["state", "driver"]
        )
        for (state, driver), count in (await self._store.counts()).items():
            there.add_metric([state, driver], count)
        total, disk = self._usage.total(), self._usage.disk()
        return [
            there,
            GaugeMetricFamily(
                "boatyard_workspaces_disk_bytes",
                "What workspaces take beside their bases, when it was measured last: once a minute.",
                value=total.bytes,
            ),
            GaugeMetricFamily(
                "boatyard_workspaces_disk_inodes",
                "Inodes that workspaces take beside their bases, when it was measured last.",
                value=total.inodes,
            ),
            GaugeMetricFamily(
                "boatyard_workspaces_disk_free_bytes",
                "What is free of the disk that workspaces lie on.",
                value=disk.free_bytes,
            ),
        ]
