"""Converts what is spent of budgets, and their limits, between messages and values."""

from typing import Final

from boatyard.gateway.v1 import budget_pb2 as pb

from services.common.rpc.mapper import Mapper
from services.gateway.values.budgets import BudgetUse
from services.lifecycle.model.budgets import BudgetLimits, Spending

LIMITS: Final = Mapper(BudgetLimits, pb.BudgetLimits)
_USE: Final = Mapper(BudgetUse, pb.BudgetUse, by_hand={"left", "spent", "reserved"})


def use_to_proto(value: BudgetUse, limits: BudgetLimits) -> pb.BudgetUse:
    """Write what is spent of a budget with these limits, and what is left."""
    spent, reserved = map(_spending_to_proto, (value.spent, value.reserved))
    left = value.left(limits)
    amounts = pb.Spending(cost_usd=left.cost_usd, tokens=left.tokens, requests=left.requests)
    return _USE.to_proto(value, left=amounts, spent=spent, reserved=reserved)


def _spending_to_proto(value: Spending) -> pb.Spending:
    return pb.Spending(cost_usd=value.cost_usd, tokens=value.tokens, requests=value.requests)
