"""The interface to whoever grants an agent's requests to models: budgets, and whatever else has a say."""

from dataclasses import dataclass
from typing import Protocol

from services.agent.asks import GRANTED, Reservation, ReservationAnswer
from services.lifecycle.ledger import Lease


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


@dataclass(frozen=True, slots=True)
class AskEnd:
    """How a request ended that had been asked for: with `use`, or else without any that is known.

    With `is_use_unknown` it may have used all that was asked for, and otherwise nothing.
    """

    ask_id: str
    use: RequestUse | None = None
    is_use_unknown: bool = False


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


class NoBooks:
    """Grants everything, and is not to be asked."""

    async def reserves(self, lease: Lease) -> bool:
        """Return False."""
        del lease
        return False

    async def reserve(
        self, lease: Lease, execution_id: str, ask_id: str, reservation: Reservation
    ) -> ReservationAnswer:
        """Grant it."""
        del lease, execution_id, ask_id, reservation
        return GRANTED

    async def settle(self, lease: Lease, execution_id: str, end: AskEnd) -> None:
        """Do nothing."""
        del lease, execution_id, end
