"""Clients that read the metrics of the cell's node services."""

from typing import Final

import grpc
from boatyard.metrics.v1 import metrics_pb2 as pb
from boatyard.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from prometheus_client.metrics_core import Metric

from services.common.metrics import wire
from services.lifecycle.nodes import Nodes

_TIMEOUT_SECONDS: Final = 2.0


def node_metrics(nodes: Nodes) -> list["NodeMetrics"]:
    """Return a client for each of a cell's node services."""
    channels = {"workspace": nodes.workspace, "git": nodes.git, "execution": nodes.execution}
    return [NodeMetrics(service, channel) for service, channel in channels.items()]


class NodeMetrics:
    """Reads the metrics of one node service."""

    def __init__(self, service: str, channel: grpc.aio.Channel) -> None:
        self.service = service
        self._stub = MetricsServiceStub(channel)

    async def read(self) -> list[Metric] | None:
        """Return its metrics; None when it does not answer in time."""
        try:
            return wire.metrics(await self._stub.ReadMetrics(pb.ReadMetricsRequest(), timeout=_TIMEOUT_SECONDS))
        except grpc.aio.AioRpcError:
            return None
