"""The interface to whoever grants an agent's requests to models: budgets, and whatever else has a say."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from services.agent.asks import ModelGate, Reservation, ReservationAnswer
from services.lifecycle.ledger import Lease, Ledger
from services.lifecycle.model.budgets import GateState, ModelNeed, Settlement


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
    gates: tuple[ModelGate, ...] = ()
    """Those that it has found closed."""

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
    """The books of budgets and of the gates of models, which the ledger keeps.

    `has_budgets`: something bounds what the job's agent may spend. Without it only gates matter.
    """

    def __init__(self, ledger: Ledger, *, has_budgets: bool) -> None:
        self._ledger = ledger
        self._has_budgets = has_budgets
        self._turns: set[str] = set()  # asks of whose end a gate has to hear

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
            ways=tuple(GateState(provider=way.provider, key=way.key, model=way.model) for way in reservation.ways),
            is_reserved=self._has_budgets,
        )
        granting = await self._ledger.reserve(lease, need)
        if granting.is_turn:
            self._turns.add(ask_id)
        pause, now = granting.retry_seconds, datetime.now(UTC)
        return ReservationAnswer(
            is_granted=granting.is_granted,
            reason=granting.reason,
            message=granting.message,
            retry_time=now + timedelta(seconds=pause) if pause else None,
            is_last_warning=granting.is_last,
            gates=tuple(_closed_gate(state, now) for state in granting.closed),
        )

    async def settle(self, lease: Lease, execution_id: str, end: AskEnd) -> None:
        """See Books."""
        if self._has_budgets or end.gates or end.ask_id in self._turns:
            await self._ledger.settle(lease, _use_of(execution_id, end))
            self._turns.discard(end.ask_id)


def _closed_gate(state: GateState, now: datetime) -> ModelGate:
    open_time = now + timedelta(seconds=state.seconds)
    return ModelGate(provider=state.provider, key=state.key, model=state.model, open_time=open_time)


def _use_of(execution_id: str, end: AskEnd) -> Settlement:
    """Return what a request has used: what is not known counts as what was reserved."""
    closed = tuple(_state_of(gate) for gate in end.gates)
    if (use := end.use) is None:
        released = not end.is_use_unknown
        return Settlement(execution_id=execution_id, ask_id=end.ask_id, is_released=released, closed=closed)
    return Settlement(execution_id=execution_id, ask_id=end.ask_id, tokens=use.tokens, cost_usd=use.cost_usd)


def _state_of(gate: ModelGate) -> GateState:
    seconds = 0.0 if gate.open_time is None else max(0.0, (gate.open_time - datetime.now(UTC)).total_seconds())
    return GateState(provider=gate.provider, key=gate.key, model=gate.model, seconds=seconds)
