"""Budgets on the command line: `2.50,200000tokens`, and what is spent of them."""

import re
from typing import Final

from boatyard.gateway.v1 import budget_pb2

AMOUNTS: Final = "USD|Ntokens|Nrequests,…"
"""What an option that takes a budget shows for it."""
_COUNT: Final = re.compile(r"(\d+)\s*(tokens|requests)")
_DOLLARS: Final = re.compile(r"\$?(\d+(?:\.\d+)?)")
_UNKNOWN: Final = "unknown-cost"
_LONGEST: Final = 18


def limits(typed: str) -> budget_pb2.BudgetLimits:
    """Read amounts: dollars, tokens, requests; and `unknown-cost`, which allows requests whose cost nobody knows."""
    result = budget_pb2.BudgetLimits()
    for part in (each.strip() for each in typed.split(",")):
        if part == _UNKNOWN:
            result.allow_unknown_cost = True
        elif (match := _COUNT.fullmatch(part)) and len(match[1]) <= _LONGEST:
            setattr(result, match[2], int(match[1]))
        elif (match := _DOLLARS.fullmatch(part)) and len(part) <= _LONGEST:
            result.cost_usd = float(match[1])
        else:
            raise ValueError(f"{part[:60]!r} is no amount such as 2.50 (dollars), 200000tokens or 40requests")
    return result


def in_words(amounts: budget_pb2.BudgetLimits | budget_pb2.Spending) -> str:
    """Write amounts for people."""
    parts = [f"${amounts.cost_usd:.2f}"] if amounts.HasField("cost_usd") else []
    parts += [f"{amounts.tokens:,} tokens"] if amounts.HasField("tokens") else []
    parts += [f"{amounts.requests:,} requests"] if amounts.HasField("requests") else []
    return ", ".join(parts)


def spent_in_words(spending: budget_pb2.Spending, of: budget_pb2.BudgetLimits) -> str:
    """Write what is spent of each amount that is limited."""
    spent = budget_pb2.Spending()
    for name in ("cost_usd", "tokens", "requests"):
        if of.HasField(name):
            setattr(spent, name, getattr(spending, name))
    return in_words(spent)
