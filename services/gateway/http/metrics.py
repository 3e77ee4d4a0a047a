"""The page /metrics: everything that a cell counts and measures, in Prometheus' format."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.common.metrics.meters import Meters, merged

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Node(Protocol):
    """A node service whose metrics can be read."""

    service: str

    async def read(self) -> list[Metric] | None:
        """Return its metrics; None when it does not answer."""
        ...


class Scrape(Collector):
    """The metrics of a gateway and its nodes at one moment."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, for Prometheus' client library."""
        yield from self._metrics


async def scrape(gateway: Meters, nodes: Sequence[Node]) -> bytes:
    """Read all metrics concurrently and write them out; a node that does not answer has only `boatyard_up` 0."""
    own, *answers = await asyncio.gather(gateway.read(), *(node.read() for node in nodes))
    up = GaugeMetricFamily(
        "boatyard_up",
        "1 when a service of the cell answers, 0 when its metrics are missing.",
        labels=["service"],
    )
    up.add_metric(["gateway"], 1)
    collected = list(own or ())
    for node, metrics in zip(nodes, answers, strict=True):
        up.add_metric([node.service], metrics is not None)
        collected += metrics or ()
    return generate_latest(Scrape(merged([up, *collected])))


class SharedScrapes:
    """Makes one scrape at a time: whoever asks meanwhile gets the same, so that many who ask cost no more than one."""

    def __init__(self, gateway: Meters, nodes: Sequence[Node]) -> None:
        self._gateway = gateway
        self._nodes = nodes
        self._running: asyncio.Task[bytes] | None = None

    async def scrape(self) -> bytes:
        """See the function `scrape`."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(scrape(self._gateway, self._nodes))
        return await asyncio.shield(self._running)
