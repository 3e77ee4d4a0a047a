"""The interface to whoever grants an agent's requests to models: budgets, and whatever else has a say."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from services.agent.asks import Reservation, ReservationAnswer
from services.lifecycle.ledger import Lease, Ledger
from services.lifecycle.model.budgets import ModelNeed, Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUse:
    """What a request to a model has used: see ModelUsage in the contract. `cost_usd` is None where it is not known."""

    request_id: str
    model: str
    provider: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    is_partial: bool
    cost_usd: float | None = None

    @property
    def tokens(self) -> int:
        """All that it read and wrote."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class AskEnd:
    """How a request ended that had been asked for: with `use`, or else without any that is known.

    With `is_use_unknown` it may have used all that was asked for, and otherwise nothing.
    """

    ask_id: str
    use: RequestUse | None = None
    is_use_unknown: bool = False

    def at_least(self, asked: Reservation) -> "AskEnd":
        """Return this, in which an answer that did not say what it used counts as no less than what was asked for.

        An agent can hang up before each answer says it.
        """
        use = self.use
        if use is None or not use.is_partial:
            return self
        lacking = max(0, asked.input_tokens + asked.max_output_tokens - use.tokens)
        cost = use.cost_usd
        if cost is not None and asked.max_cost_usd is not None:
            cost = max(cost, asked.max_cost_usd)
        return replace(self, use=replace(use, output_tokens=use.output_tokens + lacking, cost_usd=cost))


class Books(Protocol):
    """Every method may raise LedgerUnavailable and LeaseLost, and is called again then, or by the next driver."""

    async def reserves(self, lease: Lease) -> bool:
        """Return whether the job's agent has to ask before each request. It is asked once, when an agent starts."""
        ...

    async def reserve(
        self, lease: Lease, execution_id: str, ask_id: str, reservation: Reservation
    ) -> ReservationAnswer:
        """Return whether a request may be sent, and set aside what it may use if so.

        MUST give the same ask the same answer, and set nothing aside for one that was settled.
        """
        ...

    async def settle(self, lease: Lease, execution_id: str, end: AskEnd) -> None:
        """Replace what was set aside for a request by what it has used. MUST change nothing the second time.

        MUST accept an ask for which nothing was set aside: the agent did not wait for the answer.
        """
        ...


class LedgerBooks:
    """The books of budgets, which the ledger keeps. `has_budgets`: something bounds what the job's agent may spend."""

    def __init__(self, ledger: Ledger, *, has_budgets: bool) -> None:
        self._ledger = ledger
        self._has_budgets = has_budgets

    async def reserves(self, lease: Lease) -> bool:
        """See Books."""
        del lease
        return self._has_budgets

    async def reserve(
        self, lease: Lease, execution_id: str, ask_id: str, reservation: Reservation
    ) -> ReservationAnswer:
        """See Books."""
        need = ModelNeed(
            execution_id=execution_id,
            ask_id=ask_id,
            tokens=reservation.input_tokens + reservation.max_output_tokens,
            cost_usd=reservation.max_cost_usd,
            model=reservation.model,
        )
        granting = await self._ledger.reserve(lease, need)
        pause = granting.retry_seconds
        return ReservationAnswer(
            is_granted=granting.is_granted,
            reason=granting.reason,
            message=granting.message,
            retry_time=datetime.now(UTC) + timedelta(seconds=pause) if pause else None,
            is_last_warning=granting.is_last,
        )

    async def settle(self, lease: Lease, execution_id: str, end: AskEnd) -> None:
        """See Books."""
        await self._ledger.settle(lease, _use_of(execution_id, end))


def _use_of(execution_id: str, end: AskEnd) -> Settlement:
    """Return what a request has used: what is not known counts as what was reserved."""
    if (use := end.use) is None:
        return Settlement(execution_id=execution_id, ask_id=end.ask_id, is_released=not end.is_use_unknown)
    return Settlement(execution_id=execution_id, ask_id=end.ask_id, tokens=use.tokens, cost_usd=use.cost_usd)
