"""Counts what this gateway has written of jobs, checkpoints and hooks."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.gateway.values.facts import HookCalled, JobEnded, JobTaken, Questions
from services.lifecycle.model.checkpoint import CheckpointState

_SECONDS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class JobCounters:
    """Hears facts; see `common.db.facts`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter(
            "agent_jobs", "Jobs that were ended by way of this cell, by state.", ["status"], registry=registry
        )
        self._ends = Counter(
            "boatyard_jobs_ended",
            "Jobs that were ended by way of this cell, by kind, state, and the reason why they failed.",
            ["kind", "state", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "agent_jobs_duration_seconds",
            "How long jobs took that were ended by way of this cell, from their first attempt's begin, waiting for"
            " people and retries included. Those that never began are not in it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._attempts = Counter(
            "boatyard_job_attempts", "Attempts of jobs that this cell's machines have begun.", registry=registry
        )
        self._takeovers = Counter(
            "boatyard_job_takeovers",
            "Jobs taken from a cell that had lost its lease, to go on with them here.",
            registry=registry,
        )
        self._questions = Counter(
            "agent_checkpoints",
            "Checkpoints that were asked for (PENDING) or decided by way of this cell, by the state they came to.",
            ["status"],
            registry=registry,
        )
        self._calls = Counter(
            "boatyard_hook_calls",
            "Calls of hooks that have ended on this cell's machines, by event and state.",
            ["event", "state"],
            registry=registry,
        )

    def hear(self, fact: object) -> None:
        """Count a fact; others' facts are nothing to it."""
        match fact:
            case JobTaken():
                self._attempts.inc(fact.is_new)
                self._takeovers.inc(fact.is_taken_over)
            case JobEnded():
                self._ended(fact)
            case Questions():
                self._questions.labels(fact.state).inc(fact.count)
            case HookCalled():
                self._calls.labels(fact.event, fact.state).inc()

    def _ended(self, job: JobEnded) -> None:
        self._jobs.labels(job.state).inc()
        self._ends.labels(job.kind, job.state, job.reason).inc()
        if job.seconds is not None:
            self._seconds.observe(job.seconds)
        if job.reason == CheckpointState.EXPIRED:  # nobody writes that a question has expired: its job's end says so
            self._questions.labels(CheckpointState.EXPIRED).inc()
