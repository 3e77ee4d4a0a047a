"""The counters that the database has: of all cells, with everything that has ever ended.

Their names, and what they count, are those of the systems before this one, whose dashboards read them.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from services.gateway.ledger.totals import BEYOND, BOUNDS, CHECKPOINTS, DURATIONS, JOBS, Tally
from services.lifecycle.model.checkpoint import CheckpointState
from services.lifecycle.model.states import JobState

_SAME_ON_ALL_CELLS: Final = "Every cell on one database reports the same value: take the max, not the sum."
_SECOND: Final = 1e6


def total_metrics(tally: Tally) -> Iterator[Metric]:
    """Yield the metrics of a tally."""
    jobs = CounterMetricFamily(
        "agent_jobs",
        "Jobs by status: how many ended so, ever; of PENDING, RUNNING and AWAITING_APPROVAL, how many are so now."
        f" {_SAME_ON_ALL_CELLS}",
        labels=["status"],
    )
    for state in JobState:
        jobs.add_metric([state], tally.numbers[JOBS, state, 0])
    yield jobs
    asked = CounterMetricFamily(
        "agent_checkpoints",
        f"Checkpoints by status: how many were decided so, ever; of PENDING, how many wait now. {_SAME_ON_ALL_CELLS}",
        labels=["status"],
    )
    for decided in CheckpointState:
        asked.add_metric([decided], tally.numbers[CHECKPOINTS, decided, 0])
    yield asked
    yield _durations(tally)


def _durations(tally: Tally) -> Metric:
    seconds = HistogramMetricFamily(
        "agent_jobs_duration_seconds",
        "Duration of jobs that ended, by status, from the start of their first attempt, including retries and the time"
        f" spent waiting for people. Jobs that never began are not included. {_SAME_ON_ALL_CELLS}",
        labels=["status"],
    )
    for state in JobState:
        if state.is_final:
            buckets = [(DURATIONS, str(state), bound) for bound in (*BOUNDS, BEYOND)]
            counts = accumulate(tally.numbers[bucket] for bucket in buckets)
            names = [*(f"{bound:.1f}" for bound in BOUNDS), "+Inf"]
            total = sum(tally.microseconds[bucket] for bucket in buckets) / _SECOND
            seconds.add_metric([state], list(zip(names, counts, strict=True)), total)
    return seconds
