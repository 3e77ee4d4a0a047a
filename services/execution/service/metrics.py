"""Metrics of what executions do and use: counted when they end, and measured while they run."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.execution.model import Execution, ModelUse, State, Vitals
from services.execution.processes.tree import measure
from services.execution.rundir.directory import RunDirectory
from services.execution.service.manager import ExecutionManager

_SECONDS: Final = (0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0)
_MIB: Final = 1 << 20
_BYTES: Final = (16 * _MIB, 64 * _MIB, 256 * _MIB, 1024 * _MIB, 4096 * _MIB, 16384 * _MIB)
_FRESH_SECONDS: Final = 2.0


class ExecutionCounts:
    """Counts executions as they are recorded: see `services.common.db.commit_events`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        self._started = counter("boatyard_executions_started", "Executions accepted, by purpose.", ["purpose"])
        self._ended = counter(
            "boatyard_executions_ended",
            "Executions that have ended, by purpose, state, and the reason why they failed.",
            ["purpose", "state", "reason"],
        )
        self._seconds = Histogram(
            "boatyard_execution_duration_seconds",
            "How long ended executions ran, by purpose.",
            ["purpose"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._peak = Histogram(
            "boatyard_execution_memory_peak_bytes",
            "The most memory that all processes of an ended execution had together.",
            buckets=_BYTES,
            registry=registry,
        )
        self._cpu = counter("boatyard_execution_cpu_seconds", "Processor time that ended executions used.")
        self._read = counter(
            "boatyard_execution_disk_read_bytes",
            "What ended executions read from disks, where it is counted.",
        )
        self._written = counter(
            "boatyard_execution_disk_written_bytes",
            "What ended executions wrote to disks, where it is counted.",
        )
        self._output = counter(
            "boatyard_execution_output_bytes", "What ended executions wrote to standard output and error."
        )
        self._tokens = counter("boatyard_model_tokens", "Tokens that models used in ended executions.")
        self._dollars = counter(
            "boatyard_model_cost_dollars",
            "What models whose price is known cost in ended executions, in US dollars.",
        )
        self._turns = counter("boatyard_model_turns", "Requests that models answered in ended executions.")
        self._calls = counter("boatyard_model_tool_calls", "Calls of tools by models in ended executions.")

    def hear(self, fact: object) -> None:
        """Count an execution that was recorded as new, or as ended."""
        match fact:
            case Execution(state=State.PENDING):
                self._started.labels(fact.purpose).inc()
            case Execution():
                self._end(fact)

    def _end(self, execution: Execution) -> None:
        self._ended.labels(execution.purpose, execution.state, execution.reason).inc()
        self._output.inc(execution.output_bytes)
        if execution.start_time is not None and execution.end_time is not None:
            seconds = (execution.end_time - execution.start_time).total_seconds()
            self._seconds.labels(execution.purpose).observe(seconds)
        if execution.vitals is not None:
            self._use(execution.vitals)
        if execution.model_use is not None:
            self._model(execution.model_use)

    def _use(self, vitals: Vitals) -> None:
        self._peak.observe(vitals.memory_peak_bytes)
        self._cpu.inc(vitals.cpu_seconds)
        self._read.inc(vitals.read_bytes or 0)
        self._written.inc(vitals.written_bytes or 0)

    def _model(self, use: ModelUse) -> None:
        self._tokens.inc(use.tokens)
        self._dollars.inc(use.cost_usd or 0)
        self._turns.inc(use.turns)
        self._calls.inc(use.tool_calls)


class RunningMetrics:
    """Measures what runs now, and what it uses in total; at most every 2 s. Called by `Meters`: see `Meters.add`."""

    def __init__(self, executions: ExecutionManager, max_executions: int) -> None:
        self._executions = executions
        self._max_executions = max_executions
        self._latest = Vitals(0.0, 0, 0, 0)
        self._until = float("-inf")  # monotonic

    async def __call__(self) -> Iterable[Metric]:
        """Return the gauges."""
        runs = self._executions.active_runs()
        if time.monotonic() > self._until:
            self._latest = await asyncio.to_thread(_sum, runs)
            self._until = time.monotonic() + _FRESH_SECONDS
        return [
            GaugeMetricFamily("boatyard_executions_active", "Executions that have not ended.", value=len(runs)),
            GaugeMetricFamily(
                "boatyard_executions_max", "How many executions may be active at once.", value=self._max_executions
            ),
            GaugeMetricFamily(
                "boatyard_executions_active_memory_bytes",
                "Memory of all processes of all executions together, without our own runners.",
                value=self._latest.memory_bytes,
            ),
            GaugeMetricFamily(
                "boatyard_executions_active_processes",
                "Processes and threads of all executions together, those of their sandboxes included.",
                value=self._latest.processes,
            ),
            GaugeMetricFamily(
                "boatyard_executions_active_cpu_seconds",
                "Processor time that active executions have used so far.",
                value=self._latest.cpu_seconds,
            ),
        ]


def _sum(runs: Iterable[RunDirectory]) -> Vitals:
    """Measure the processes below each runner. Blocks for some ms."""
    used = [measure(pid) for run in runs if (pid := run.holder()) is not None]
    memory = sum(each.memory_bytes for each in used)
    return Vitals(sum(each.cpu_seconds for each in used), memory, memory, sum(each.processes for each in used))
