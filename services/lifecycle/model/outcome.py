"""How a step or a job ends."""

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
