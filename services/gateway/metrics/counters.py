"""Counts what this gateway has written about jobs and hooks."""

from prometheus_client import CollectorRegistry, Counter

from services.gateway.values.facts import BudgetRefused, HookCalled, JobEnded, JobTaken


class JobCounters:
    """Counts facts after they are committed; see `services.common.db.commit_events`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ends = Counter(
            "boatyard_jobs_ended",
            "Jobs ended through this cell, by kind, state, and the reason of the failure.",
            ["kind", "state", "reason"],
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
        self._hook_calls = Counter(
            "boatyard_hook_calls",
            "Hook calls that ended on this cell's machines, by event and state.",
            ["event", "state"],
            registry=registry,
        )
        self._refusals = Counter(
            "boatyard_budget_refusals",
            "Requests to models that this cell has refused because a budget was used up, by the budget's scope.",
            ["scope"],
            registry=registry,
        )

    def count(self, fact: object) -> None:
        """Count a fact; other types of facts are ignored."""
        match fact:
            case JobTaken():
                self._attempts.inc(fact.is_new)
                self._takeovers.inc(fact.is_taken_over)
            case JobEnded():
                self._ends.labels(fact.kind, fact.state, fact.reason).inc()
            case HookCalled():
                self._hook_calls.labels(fact.event, fact.state).inc()
            case BudgetRefused():
                self._refusals.labels(fact.scope).inc()
