"""What an execution asks of whoever started it, and what it is answered, with the names of the contract.

Standard library only: runners import it.
"""

from dataclasses import dataclass
from datetime import datetime

from services.agent.providers import ModelWire


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGate:
    """What a provider limits together: see the contract. `open_time` is None where nobody knows that it is closed."""

    provider: str
    key: int
    model: str
    open_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A request to a model that is about to be sent, with the most that it may use: see the contract."""

    wire: ModelWire
    provider: str
    model: str
    input_tokens: int
    max_output_tokens: int
    is_input_estimated: bool = True
    max_cost_usd: float | None = None
    ways: tuple[ModelGate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationAnswer:
    """Whether that request may be sent. With a `retry_time` it may be asked for again then; without one never."""

    is_granted: bool
    reason: str = ""
    message: str = ""
    retry_time: datetime | None = None
    is_last_warning: bool = False
    gates: tuple[ModelGate, ...] = ()


GRANTED = ReservationAnswer(is_granted=True)
