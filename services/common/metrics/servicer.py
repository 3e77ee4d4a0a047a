"""The RPC that returns a service's metrics."""

from typing import Any

from boatyard.metrics.v1 import metrics_pb2 as pb
from boatyard.metrics.v1.metrics_pb2_grpc import MetricsServiceServicer, add_MetricsServiceServicer_to_server
from grpc import aio

from services.common.metrics import wire
from services.common.metrics.meters import Meters
from services.common.rpc.server import Registration

Context = aio.ServicerContext[Any, Any]


class MetricsServicer(MetricsServiceServicer):
    """Serves boatyard.metrics.v1.MetricsService."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    async def ReadMetrics(self, request: pb.ReadMetricsRequest, context: Context) -> pb.ReadMetricsResponse:
        return wire.response(await self._meters.read())


def registration(meters: Meters) -> Registration:
    """Return its registration, to serve it beside a service's own RPCs."""
    return Registration(
        pb.DESCRIPTOR.services_by_name["MetricsService"].full_name,
        add_MetricsServiceServicer_to_server,
        MetricsServicer(meters),
    )
