"""The RPC of costs: from the wire to the store and back."""

from typing import Any

from boatyard.gateway.v1 import cost_pb2 as pb
from boatyard.gateway.v1.cost_pb2_grpc import CostServiceServicer
from grpc import aio

from services.gateway.cost import wire
from services.gateway.cost.store import CostStore

Context = aio.ServicerContext[Any, Any]


class CostServicer(CostServiceServicer):
    """Serves boatyard.gateway.v1.CostService."""

    def __init__(self, costs: CostStore) -> None:
        self._costs = costs

    async def GetCost(self, request: pb.GetCostRequest, context: Context) -> pb.GetCostResponse:
        return wire.costs_to_proto(await self._costs.costs(wire.query_from_proto(request)))
