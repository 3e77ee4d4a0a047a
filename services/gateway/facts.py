"""What happens to jobs that is worth counting: noted where it is written, by `common.db.facts`."""

from dataclasses import dataclass

from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import HookEvent, JobState


@dataclass(frozen=True, slots=True)
class JobTaken:
    """A job was given to a machine to carry.

    `is_new` says that an attempt begins, `is_taken_over` that another cell had the job, and has lost it.
    """

    is_new: bool
    is_taken_over: bool


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has ended. `seconds` are those since an attempt first began; None where none has."""

    kind: str
    state: JobState
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Questions:
    """So many questions to people have come to stand so."""

    state: CheckpointState
    count: int = 1


@dataclass(frozen=True, slots=True)
class HookCalled:
    """A call of a hook has ended."""

    event: HookEvent
    state: CallState
