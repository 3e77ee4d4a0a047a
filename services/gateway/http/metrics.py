"""/metrics: all that a cell counts and measures, as Prometheus reads it."""

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
    """A node service that tells its metrics, or None where it does not answer."""

    service: str

    async def read(self) -> list[Metric] | None:
        """Ask it."""
        ...


class Scrape(Collector):
    """The metrics of a gateway and of its nodes, as they were at one moment."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield from self._metrics


async def scrape(gateway: Meters, nodes: Sequence[Node]) -> bytes:
    """Ask everybody at once, and write what they say. A node that is away is told of as such, and no more."""
    own, *answers = await asyncio.gather(gateway.read(), *(node.read() for node in nodes))
    up = GaugeMetricFamily(
        "boatyard_up",
        "Whether a service of the cell answers: 1, or 0 where its metrics are missing.",
        labels=["service"],
    )
    up.add_metric(["gateway"], 1)
    collected = list(own or ())
    for node, metrics in zip(nodes, answers, strict=True):
        up.add_metric([node.service], metrics is not None)
        collected += metrics or ()
    return generate_latest(Scrape(merged([up, *collected])))
