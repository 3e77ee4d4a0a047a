"""Counts what this gateway has written about jobs, checkpoints and hooks."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.gateway.values.facts import HookCalled, JobEnded, JobTaken, Questions
from services.lifecycle.model.checkpoint import CheckpointState

_SECONDS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class JobCounters:
    """Counts facts after they are committed; see `services.common.db.commit_events`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter("agent_jobs", "Jobs ended through this cell, by state.", ["status"], registry=registry)
        self._ends = Counter(
            "boatyard_jobs_ended",
            "Jobs ended through this cell, by kind, state, and the reason of the failure.",
            ["kind", "state", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "agent_jobs_duration_seconds",
            "Duration of jobs ended through this cell, from the start of their first attempt, including retries and"
            " time spent waiting for people. Jobs that never began are not included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._attempts = Counter(
            "boatyard_job_attempts", "Attempts of jobs begun on this cell's machines.", registry=registry
        )
        self._takeovers = Counter(
            "boatyard_job_takeovers",
            "Jobs taken over from a cell that had lost its lease, to continue them here.",
            registry=registry,
        )
        self._questions = Counter(
            "agent_checkpoints",
            "Checkpoints opened (PENDING) or decided through this cell, by the state that they entered.",
            ["status"],
            registry=registry,
        )
        self._hook_calls = Counter(
            "boatyard_hook_calls",
            "Hook calls that ended on this cell's machines, by event and state.",
            ["event", "state"],
            registry=registry,
        )

    def count(self, fact: object) -> None:
        """Count a fact; other types of facts are ignored."""
        match fact:
            case JobTaken():
                self._attempts.inc(fact.is_new)
                self._takeovers.inc(fact.is_taken_over)
            case JobEnded():
                self._count_end(fact)
            case Questions():
                self._questions.labels(fact.state).inc(fact.count)
            case HookCalled():
                self._hook_calls.labels(fact.event, fact.state).inc()

    def _count_end(self, job: JobEnded) -> None:
        self._jobs.labels(job.state).inc()
        self._ends.labels(job.kind, job.state, job.reason).inc()
        if job.seconds is not None:
            self._seconds.observe(job.seconds)
        if job.reason == CheckpointState.EXPIRED:  # an expiry is not written for itself: the job's end implies it
            self._questions.labels(CheckpointState.EXPIRED).inc()
