"""Convert budgets between messages and values, and check what a request can get wrong."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from boatyard.gateway.v1 import budget_pb2 as pb

from services.common.ids import new_id
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check, Violation
from services.gateway.catalog.update_wire import Form
from services.gateway.catalog.wire import project_id_from_proto
from services.gateway.values.budgets import Budget, BudgetUse
from services.gateway.wire.budgets import use_to_proto
from services.gateway.wire.requests import page_checks

_BUDGET: Final = Mapper(Budget, pb.Budget, by_hand={"uses"})
_IMMUTABLE: Final = frozenset({"project_id", "scope", "worker_id", "period", "create_time", "uses"})


def budget_from_proto(message: pb.Budget) -> Budget:
    """Read a budget that is to be created."""
    return _BUDGET.from_proto(
        message,
        budget_id=message.budget_id or new_id("budget"),
        project_id=project_id_from_proto(message.project_id),
        create_time=datetime.now(UTC),
    )


def budget_to_proto(value: Budget, uses: Sequence[BudgetUse]) -> pb.Budget:
    """Write a budget with what is spent of it."""
    return _BUDGET.to_proto(value, uses=[use_to_proto(use, value.limits) for use in uses])


def _check_budget(message: pb.Budget) -> Iterator[Violation]:
    limits = message.limits
    if not (limits.HasField("cost_usd") or limits.HasField("tokens") or limits.HasField("requests")):
        yield "limits", "must have `cost_usd`, `tokens` or `requests`"


BUDGET: Final = Form(
    "budget",
    _BUDGET.to_proto,
    budget_from_proto,
    _check_budget,
    immutable=_IMMUTABLE,
    nested=frozenset({"limits"}),
)
CHECKS: Final[Mapping[str, Check]] = {
    **BUDGET.checks(pb.CreateBudgetRequest, pb.UpdateBudgetRequest),
    **page_checks(pb.DESCRIPTOR.services_by_name["BudgetService"]),
}
"""Rules for requests about budgets as a whole, by their full names."""
