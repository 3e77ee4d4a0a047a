"""Assembles the service of costs."""

from boatyard.gateway.v1 import cost_pb2
from boatyard.gateway.v1.cost_pb2_grpc import add_CostServiceServicer_to_server

from services.common.rpc.server import Registration
from services.gateway.cost import wire
from services.gateway.cost.servicer import CostServicer
from services.gateway.cost.store import CostStore


def registration(costs: CostStore) -> Registration:
    """Return the registration of CostService."""
    service = cost_pb2.DESCRIPTOR.services_by_name["CostService"]
    return Registration(service.full_name, add_CostServiceServicer_to_server, CostServicer(costs), wire.CHECKS)
