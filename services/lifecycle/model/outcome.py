"""How a step or a job ends, and for how long that keeps its workspace."""

from dataclasses import dataclass

from services.lifecycle.model.states import JobState
from services.lifecycle.model.value import Recorded


@dataclass(frozen=True, slots=True)
class Nothing(Recorded):
    """The result of a stage that has none."""


@dataclass(frozen=True, slots=True)
class Failure(Recorded):
    """Why something failed: a reason of the catalogue, and words for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome(Recorded):
    """How a job ends; `failure` where it FAILED."""

    state: JobState
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Retry(Recorded):
    """How a job goes on whose attempt has failed: in so many seconds, from a snapshot of its cell if one is named."""

    failure: Failure
    seconds: float
    snapshot_id: str = ""


@dataclass(frozen=True, slots=True)
class RetentionPeriods:
    """For how many seconds the workspace of a job is kept, where its policy keeps it, by how the job ended."""

    succeeded: float = 24 * 3600.0
    failed: float = 72 * 3600.0
    cancelled: float = 24 * 3600.0

    def after(self, state: JobState) -> float:
        """Return how long, of a state that is final."""
        return {JobState.SUCCEEDED: self.succeeded, JobState.CANCELLED: self.cancelled}.get(state, self.failed)
