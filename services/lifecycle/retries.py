"""Retries of jobs: after which failures, and how soon. Each is an attempt with its own execution."""

import random

from services.common.reasons import is_listed
from services.common.room import DISK_FULL
from services.lifecycle.ledger import PATIENCE_SECONDS
from services.lifecycle.model.node_work import EndedRun
from services.lifecycle.model.outcome import Failure, ModelOutage, Outcome, Retry
from services.lifecycle.model.states import JobState, RetryFrom
from services.lifecycle.run import JobRun

_FIRST_SECONDS = 2.0
_LONGEST_SECONDS = 300.0
_PASSING = frozenset({DISK_FULL, "WORKSPACES_QUOTA"})
_OF_MACHINES = _PASSING | {"SANDBOX_UNAVAILABLE", "AGENT_NOT_INSTALLED"}
"""What a machine refuses because of itself, before the agent begins: another may not, nor this one when it passes."""
_OUTAGE = "MODEL_UNAVAILABLE"
_OUTAGE_PATIENCE_SECONDS = 24 * 3600
"""For how long a job waits for its models, without an answer in between, before its outages use up attempts."""
_TOLD_OTHERS = ("push", "post-hook")
"""Stages after which the result may be public. A job that has begun one is not retried."""


def is_to_retry(job: JobRun, outcome: Outcome) -> bool:
    """True when a job whose attempt ended with this outcome gets another attempt."""
    if outcome.failure is None or job.cancel_requested or _has_told(job):
        return False
    if is_refusal(job, outcome.failure) or _outage(job, outcome.failure) is not None:
        return True
    if _may_pass(job, outcome.failure) and job.lease.patience_seconds <= 0:
        return False  # it has been waited for, and an attempt would be refused again
    return job.lease.attempt < job.lease.last_attempt and is_listed(outcome.failure.reason, job.spec.policy.retry_on)


def is_refusal(job: JobRun, failure: Failure) -> bool:
    """True when this machine cannot carry the job, whose agent has not begun, and another one, or waiting, may help."""
    if failure.reason not in _OF_MACHINES or job.lease.patience_seconds <= 0 or job.has_agent_begun:
        return False
    return job.lease.has_other_place or _may_pass(job, failure)


def _outage(job: JobRun, failure: Failure) -> ModelOutage | None:
    """Return the outage of a provider of models that the job waits for, without using up attempts; None for none."""
    ended = _ended_agent(job)
    if failure.reason != _OUTAGE or ended is None or not is_listed(_OUTAGE, job.spec.policy.retry_on):
        return None
    if job.lease.outage_seconds > _OUTAGE_PATIENCE_SECONDS and not _had_answers(job):
        return None
    return ended.run.model_outage


def _ended_agent(job: JobRun) -> EndedRun | None:
    return job.recorded(job.in_round("agent"), EndedRun)


def _had_answers(job: JobRun) -> bool:
    """True when models have answered the agent before it ended."""
    ended = _ended_agent(job)
    return ended is not None and ended.run.model_use is not None and ended.run.model_use.turns > 0


def unless_refused(job: JobRun, outcome: Outcome) -> Outcome:
    """Return the outcome, which is CANCELLED for a job that was cancelled while its machine could not carry it."""
    if job.cancel_requested and outcome.failure is not None and is_refusal(job, outcome.failure) and not _has_told(job):
        return Outcome(JobState.CANCELLED)
    return outcome


def _has_told(job: JobRun) -> bool:
    return job.has_begun("error") or any(name.startswith(_TOLD_OTHERS) for name in job.stages)


def _may_pass(job: JobRun, failure: Failure) -> bool:
    return failure.reason in _PASSING and not job.has_agent_begun


def retry_after(job: JobRun, failure: Failure) -> Retry:
    """Return how a job continues after a failure: the wait doubles with each attempt, and has jitter.

    What one machine refuses another may take at once; when there is no other, the wait grows with the time.
    """
    if is_refusal(job, failure):
        waited = PATIENCE_SECONDS - job.lease.patience_seconds
        longest = 0.0 if job.lease.has_other_place else min(max(_FIRST_SECONDS, waited / 2), _LONGEST_SECONDS)
        return Retry(failure, longest, is_refusal=True)
    if (outage := _outage(job, failure)) is not None:
        snapshot_id = job.execution.output.snapshot_id
        return Retry(failure, job.outage_pause_seconds, snapshot_id, outage=outage, is_new_outage=_had_answers(job))
    seconds = back_off(job.lease.attempt)
    from_snapshot = job.spec.policy.retry_from is RetryFrom.SNAPSHOT
    return Retry(failure, seconds, job.execution.output.snapshot_id if from_snapshot else "")


def back_off(attempt: int) -> float:
    """Return how many seconds to wait after an attempt, counted from 1."""
    longest: float = min(_FIRST_SECONDS * 2 ** min(attempt - 1, 16), _LONGEST_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def with_attempt_number(job: JobRun, outcome: Outcome) -> Outcome:
    """Return the outcome with the attempt's number in its failure's message, after the first attempt."""
    if outcome.failure is None or job.lease.attempt == 1:
        return outcome
    message = f"{outcome.failure.message} (attempt {job.lease.attempt})"
    return Outcome(outcome.state, Failure(outcome.failure.reason, message))
