"""The RPCs of BudgetService: they translate between messages and the stores."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from boatyard.gateway.v1 import budget_pb2 as pb
from boatyard.gateway.v1.budget_pb2_grpc import BudgetServiceServicer
from grpc import aio

from services.gateway.budgets import wire
from services.gateway.budgets.store import BudgetStore
from services.gateway.catalog.store import BUDGETS, CatalogStore
from services.gateway.values.budgets import Budget
from services.gateway.values.catalog import CatalogFilter
from services.gateway.wire.requests import idempotency_key, page_from_proto

Context = aio.ServicerContext[Any, Any]


class BudgetServicer(BudgetServiceServicer):
    """Serves boatyard.gateway.v1.BudgetService."""

    def __init__(self, catalog: CatalogStore, store: BudgetStore) -> None:
        self._catalog = catalog
        self._store = store

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: Context) -> pb.CreateBudgetResponse:
        budget = wire.budget_from_proto(request.budget)
        budget = await self._catalog.create(BUDGETS, budget, idempotency_key(request))
        return pb.CreateBudgetResponse(budget=(await self._shown([budget]))[0])

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        budget = await self._catalog.get(BUDGETS, request.budget_id)
        return pb.GetBudgetResponse(budget=(await self._shown([budget]))[0])

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Context) -> pb.ListBudgetsResponse:
        filters = CatalogFilter(project_id=request.project_id)
        budgets, token = await self._catalog.page(BUDGETS, filters, page_from_proto(request))
        return pb.ListBudgetsResponse(budgets=await self._shown(budgets), next_page_token=token)

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: Context) -> pb.UpdateBudgetResponse:
        budget_id, change = wire.BUDGET.change_from_proto(request)
        budget = await self._catalog.update(BUDGETS, budget_id, change)
        await self._store.tell_again(budget_id)
        return pb.UpdateBudgetResponse(budget=(await self._shown([budget]))[0])

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Context) -> pb.DeleteBudgetResponse:
        await self._catalog.delete(BUDGETS, request.budget_id, datetime.now(UTC))
        await self._store.forget(request.budget_id)
        return pb.DeleteBudgetResponse()

    async def _shown(self, budgets: Sequence[Budget]) -> list[pb.Budget]:
        uses = await self._store.uses(budgets)
        return [wire.budget_to_proto(budget, uses[budget.budget_id]) for budget in budgets]
