"""What happens to jobs and is counted: published with the transaction that writes it (`common.db.commit_events`)."""

from dataclasses import dataclass

from services.gateway.values.budgets import BudgetScope
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import HookEvent, JobState


@dataclass(frozen=True, slots=True)
class JobTaken:
    """A cell has claimed a job.

    `is_new` means that an attempt begins, `is_taken_over` that another cell had the job and has lost it.
    """

    is_new: bool
    is_taken_over: bool


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has ended."""

    kind: str
    state: JobState
    reason: str


@dataclass(frozen=True, slots=True)
class HookCalled:
    """A call of a hook has ended."""

    event: HookEvent
    state: CallState


@dataclass(frozen=True, slots=True)
class BudgetRefused:
    """A budget has refused a request to a model."""

    scope: BudgetScope
