"""How a step or a job ends, and how long its workspace is kept after that."""

from dataclasses import dataclass
from datetime import datetime

from services.lifecycle.model.states import JobState
from services.lifecycle.model.value import Recorded


@dataclass(frozen=True, slots=True)
class Nothing(Recorded):
    """The result of a stage that has none."""


@dataclass(frozen=True, slots=True)
class Failure(Recorded):
    """Why something failed: a machine-readable reason, and a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome(Recorded):
    """How a job ends; `failure` where it FAILED."""

    state: JobState
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ModelOutage(Recorded):
    """Which provider of models has not answered, and when it may be asked again, if it says so."""

    provider: str
    retry_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Retry(Recorded):
    """How a job continues after a failed attempt: after `seconds`, and from a snapshot of its cell if one is named."""

    failure: Failure
    seconds: float
    snapshot_id: str = ""
    is_refusal: bool = False
    """Whether the machine could not carry the job, whose agent has not begun: that uses up no attempt."""
    outage: ModelOutage | None = None
    """The outage of a provider of models that has ended the attempt: that uses up none either. The provider is left
    alone for `seconds` at first, and longer when it is away longer."""
    is_new_outage: bool = False
    """Whether models had answered in this attempt before."""


@dataclass(frozen=True, slots=True)
class RetentionPeriods:
    """How many seconds the workspace of a job is kept, by how the job ended, if its policy keeps it."""

    succeeded: float = 24 * 3600.0
    failed: float = 72 * 3600.0
    cancelled: float = 24 * 3600.0

    def after(self, state: JobState) -> float:
        """Return the period for a final state."""
        return {JobState.SUCCEEDED: self.succeeded, JobState.CANCELLED: self.cancelled}.get(state, self.failed)
