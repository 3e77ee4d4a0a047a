"""Trying a job again: after which failures, and how soon. Each try is an attempt with an execution of its own."""

import random

from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.states import RetryFrom
from services.lifecycle.run import JobRun

_FIRST_SECONDS = 2.0
_LONGEST_SECONDS = 300.0
_TOLD_OTHERS = ("push", "post-hook")
"""Stages from which on others may know of the result: what comes after them is not done a second time."""


def is_to_retry(job: JobRun, outcome: Outcome) -> bool:
    """Whether an attempt that came to this is not the job's last."""
    if outcome.failure is None or job.cancel_requested or job.has_begun("error"):
        return False
    if any(name.startswith(_TOLD_OTHERS) for name in job.stages):
        return False
    return job.lease.attempt < job.lease.last_attempt and outcome.failure.reason in job.order.policy.retry_on


def retry_after(job: JobRun, failure: Failure) -> Retry:
    """Return how a job goes on after a failure: it waits twice as long each time, and not all jobs alike."""
    seconds = back_off(job.lease.attempt)
    from_snapshot = job.order.policy.retry_from is RetryFrom.SNAPSHOT
    return Retry(failure, seconds, job.execution.output.snapshot_id if from_snapshot else "")


def back_off(attempt: int) -> float:
    """Return how many seconds to wait after an attempt, counted from 1."""
    longest: float = min(_FIRST_SECONDS * 2 ** min(attempt - 1, 16), _LONGEST_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def with_attempt_number(job: JobRun, outcome: Outcome) -> Outcome:
    """Say in the failure of a job that was tried several times how often it was."""
    if outcome.failure is None or job.lease.attempt == 1:
        return outcome
    message = f"{outcome.failure.message} (attempt {job.lease.attempt})"
    return Outcome(outcome.state, Failure(outcome.failure.reason, message))
