"""Assembles the service for budgets."""

from boatyard.gateway.v1 import budget_pb2
from boatyard.gateway.v1.budget_pb2_grpc import add_BudgetServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.server import Registration
from services.gateway.budgets import wire
from services.gateway.budgets.servicer import BudgetServicer
from services.gateway.budgets.store import BudgetStore
from services.gateway.catalog.store import CatalogStore


def registration(engine: AsyncEngine) -> Registration:
    """Return BudgetService."""
    return Registration(
        budget_pb2.DESCRIPTOR.services_by_name["BudgetService"].full_name,
        add_BudgetServiceServicer_to_server,
        BudgetServicer(CatalogStore(engine), BudgetStore(engine)),
        wire.CHECKS,
    )
