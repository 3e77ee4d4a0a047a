"""The metrics of one service: some are counted as things happen, others are read when they are collected."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, Self, TypeAlias

import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric

from services.common.metrics.process import EventLoop, Process
from services.common.metrics.rpc import RpcMetrics
from services.common.rpc.call import Layer

Source: TypeAlias = Callable[[], Awaitable[Iterable[Metric]]]
"""Reads some metrics, such as from a database."""

_PATIENCE_SECONDS: Final = 1.0

log = structlog.get_logger()


class Meters:
    """The metrics of one service, by its name. Counters are made in `registry` by those who count."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.around: Layer = RpcMetrics(service, self.registry).around
        self.registry.register(Process(service))
        self._loop = EventLoop(service, self.registry)
        self._failed = Counter(
            "boatyard_metrics_failures",
            "Times that some metrics of the service could not be looked up, and are missing.",
            registry=self.registry,
            labelnames=["service"],
        ).labels(service)
        self._sources: list[Source] = []

    def add(self, source: Source) -> None:
        """Call `source` whenever the metrics are collected; it has a second to answer."""
        self._sources.append(source)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Self]:
        """Measure the event loop's lag inside."""
        task = asyncio.create_task(self._loop.watch(), name="event loop's lag")
        try:
            yield self
        finally:
            task.cancel()

    async def read(self) -> list[Metric]:
        """Return every metric as it is now, except those whose source fails."""
        looked_up = [metric for metrics in await asyncio.gather(*map(self._ask, self._sources)) for metric in metrics]
        return [*map(_without_times, self.registry.collect()), *looked_up]

    async def _ask(self, source: Source) -> Iterable[Metric]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await source()
        except Exception as error:  # noqa: BLE001 - one source's failure must not hide the metrics of others
            log.warning("cannot read some metrics", error=str(error) or type(error).__name__)
            self._failed.inc()
            return ()


def merged(metrics: Iterable[Metric]) -> list[Metric]:
    """Group metrics by name, as Prometheus requires."""
    by_name: dict[str, Metric] = {}
    for metric in metrics:
        family = by_name.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        family.samples.extend(metric.samples)
    return list(by_name.values())


def _without_times(metric: Metric) -> Metric:
    """Leave out the creation time that prometheus_client adds to each counter: it doubles the size."""
    metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    return metric
