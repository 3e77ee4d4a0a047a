"""What may be spent on models, what a request may need of it, and what was answered."""

import math
from dataclasses import dataclass, fields
from typing import Final, Self

from services.lifecycle.model.value import Recorded

EXCEEDED: Final = "BUDGET_EXCEEDED"
"""The reason for which a request is refused, and its job ends."""

_NANO: Final = 1_000_000_000
_MOST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits(Recorded):
    """The most of each that may be spent, with the names of the contract; None does not limit.

    `allow_unknown_cost` lets requests through whose cost nobody knows, where dollars are limited.
    """

    cost_usd: float | None = None
    tokens: int | None = None
    requests: int | None = None
    allow_unknown_cost: bool = False

    @property
    def is_open(self) -> bool:
        """True when nothing is limited."""
        return self.amounts == (None, None, None)

    @property
    def amounts(self) -> tuple[int | None, int | None, int | None]:
        """The limits as `Spending` counts: nanodollars, tokens, requests."""
        return None if self.cost_usd is None else nanodollars(self.cost_usd), self.tokens, self.requests


AMOUNTS: Final = ("cost_usd", "tokens", "requests")
"""The fields of BudgetLimits that limit something."""
UNLIMITED: Final = BudgetLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending(Recorded):
    """What is spent, or reserved. Money is in whole nanodollars: sums of floats are not the same in every order.

    What is more than a database can count counts as the most that it can, and what is less than nothing as nothing.
    """

    nanodollars: int = 0
    tokens: int = 0
    requests: int = 0

    def __add__(self, other: Self) -> "Spending":
        return self._combined(other, 1)

    def __sub__(self, other: Self) -> "Spending":
        return self._combined(other, -1)

    def _combined(self, other: "Spending", sign: int) -> "Spending":
        sums = {each.name: getattr(self, each.name) + sign * getattr(other, each.name) for each in fields(self)}
        return Spending(**{name: min(max(0, value), _MOST) for name, value in sums.items()})

    @property
    def cost_usd(self) -> float:
        """The money in dollars."""
        return self.nanodollars / _NANO

    @property
    def amounts(self) -> tuple[int, int, int]:
        """Nanodollars, tokens, requests."""
        return self.nanodollars, self.tokens, self.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState(Recorded):
    """What a provider limits together, as ModelGate in the contract, and for how many seconds it is closed."""

    provider: str
    key: int
    model: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNeed(Recorded):
    """What one request to a model may need at most, before it is sent. `cost_usd` is None where no price is known.

    It needs one of its `ways` to be open, and where `is_reserved` also what it may use in all budgets.
    """

    execution_id: str
    ask_id: str
    tokens: int
    cost_usd: float | None
    model: str = ""
    ways: tuple[GateState, ...] = ()
    is_reserved: bool = True

    @property
    def spending(self) -> Spending:
        """What is reserved for it. Of an unknown cost nothing is."""
        return Spending(nanodollars=nanodollars(self.cost_usd or 0.0), tokens=self.tokens, requests=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement(Recorded):
    """What one request to a model has used, as its answer said, or none of it where `is_released`: it was not billed.

    What is None is not known: it counts as what was reserved. `closed` are the gates that it has found closed.
    """

    execution_id: str
    ask_id: str
    tokens: int | None = None
    cost_usd: float | None = None
    is_released: bool = False
    closed: tuple[GateState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Granting(Recorded):
    """The answer to a need: whether the request may be sent, and why not.

    With `retry_seconds` it is to be asked again then: requests that are under way may leave enough for it. `is_last`
    warns: what is left of a budget is not enough for another request of this size. `closed` are those of its ways that
    the request must not take, and with `is_turn` it is one of those that try a gate after that was closed.
    """

    is_granted: bool
    reason: str = ""
    message: str = ""
    retry_seconds: float = 0.0
    is_last: bool = False
    closed: tuple[GateState, ...] = ()
    is_turn: bool = False


GRANTED: Final = Granting(is_granted=True)


def nanodollars(cost_usd: float) -> int:
    """Return dollars as whole nanodollars, rounded up; less than a millionth of one of them is an error of floats."""
    return math.ceil(round(cost_usd * _NANO, 6))
