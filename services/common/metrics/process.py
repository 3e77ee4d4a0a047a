"""What a service's process uses of the machine, and whether its event loop keeps up."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common import lossy

_LOOK_EVERY_SECONDS: Final = 0.5
_LOOKS: Final = 120


class Process(Collector):
    """Memory, CPU time, open files and lost log lines of this process, labelled with the service."""

    def __init__(self, service: str) -> None:
        self._process = ProcessCollector(namespace="boatyard", registry=None)
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        for metric in self._process.collect():
            labelled = Metric(
                metric.name, f"{metric.documentation.rstrip('.')}, of the service's process.", metric.type
            )
            for sample in metric.samples:
                labelled.add_sample(sample.name, {**sample.labels, "service": self._service}, sample.value)
            yield labelled
        lost = CounterMetricFamily(
            "boatyard_log_lines_lost",
            "Lines that the service could not write to its log, because the disk had no room.",
            labels=["service"],
        )
        lost.add_metric([self._service], lossy.lost_lines())
        yield lost


class EventLoop:
    """Measures how late the event loop wakes a sleeper: every call waits that long before it is served."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._late: deque[float] = deque([0.0], maxlen=_LOOKS)
        lag = Gauge(
            "boatyard_event_loop_lag_seconds",
            "How late the service's event loop was at the worst, in the last minute.",
            ["service"],
            registry=registry,
        )
        lag.labels(service).set_function(lambda: max(self._late))

    async def watch(self) -> None:
        """Measure twice a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_EVERY_SECONDS
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            self._late.append(max(0.0, loop.time() - due))
