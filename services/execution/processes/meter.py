"""Measures a run, records its vitals, and says which limit was hit and when to measure again."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from services.execution.cgroups.group import OWN_PROCESSES, ControlGroup, ControlGroupUsage, Controller
from services.execution.eventlog import EventKind, EventWriter
from services.execution.model import Bounds, Reason, Vitals
from services.execution.processes import tree
from services.execution.processes.disk import Growth
from services.execution.processes.scratch import Scratch

_REPORT_S = 5.0
_REPORT_SHARE = 1 / 200
"""The minimum time between two events, as a share of the run's time so far: it bounds their number."""
_LOOK_S = (0.01, 0.2)
"""Shortest and longest pause when only we enforce limits: after a large change, and while nothing happens."""
_LOOK_GROUP_S = (0.05, 1.0)
"""The same when the kernel enforces memory and processes."""
_QUIET = 1.5
_CHANGED = 0.05
_MAX_REFUSED = 1000
"""The number of refused processes after which we assume that the program would never stop."""
_NO_USAGE = ControlGroupUsage(Vitals(0.0, 0, 0, 0))

Root = Callable[[], int | None]
"""Returns the process whose descendants are the run's; None while there is none."""


class Meter:
    """Measures the processes and the workspace of one run, as rarely as its limits allow."""

    def __init__(self, bounds: Bounds, writer: EventWriter, group: ControlGroup | None, root: Root) -> None:
        self._bounds = bounds
        self._writer = writer
        self._group = group
        self._root = root
        self._growth: Growth | None = None
        if bounds.workspace_bytes is not None and bounds.workspace is not None:
            self._growth = Growth(
                Path(bounds.workspace),
                bounds.workspace_bytes,
                changes=bounds.workspace_begins_empty,
                beside=None if bounds.home is None else Path(bounds.home),
            )
        self._scratch = None if bounds.scratch_bytes is None else Scratch(has_home=bounds.home is None)
        self._last = _NO_USAGE
        self._peak = 0
        self._seconds = 0.0
        self._began = self._at = self._next = time.monotonic()
        self._pace = _LOOK_GROUP_S if self._has(Controller.MEMORY) and self._has(Controller.PROCESSES) else _LOOK_S
        self._interval = self._pace[0]
        self._reported = _NO_USAGE.vitals
        self._report_at = self._began + _REPORT_S

    def due(self) -> float:
        """When to call `look`, on the monotonic clock."""
        return self._next if self._growth is None else min(self._next, self._growth.due())

    def look(self) -> Reason | None:
        """Measure what is due; return the limit for which the run must be ended, if there is one."""
        now = time.monotonic()
        if self._growth is not None:
            self._growth.look()
            if self._growth.exceeded:
                return Reason.DISK_LIMIT
        if now < self._next:
            return None
        if self._scratch is not None:
            self._scratch.look(self._root())
        before, self._last = self._last, self._measure()
        self._report(now)
        self._next = now + self._pause(before, now - self._at)
        self._at = now
        return self._exceeded()

    def at_end(self) -> Reason | None:
        """Measure a last time, after the end; return the limit that may have made the program fail, if there is one."""
        self._last = self._measure()
        if self._scratch is not None:
            self._scratch.close()
        if self._last.killed:
            return Reason.MEMORY_LIMIT
        if self._last.refused:
            return Reason.PROCESS_LIMIT
        return self._exceeded() or (Reason.SCRATCH_LIMIT if self._scratch and self._scratch.was_full else None)

    def vitals(self) -> Vitals:
        """Return what the run has used in total."""
        return replace(self._last.vitals, memory_bytes=0, processes=0)

    def _measure(self) -> ControlGroupUsage:
        """Read all counters: those of the control group, and what it does not count from /proc."""
        reading = _NO_USAGE if self._group is None else self._group.read()
        vitals = reading.vitals
        sampled = (Controller.MEMORY, Controller.PROCESSES, Controller.CPU)
        missing = [controller for controller in sampled if not self._has(controller)]
        if missing and (root := self._root()) is not None:
            sample = tree.measure(root)
            if Controller.MEMORY in missing:
                memory = sample.memory_bytes
                if _over(memory, self._bounds.memory_bytes):
                    memory = tree.proportional_memory(root) or memory
                self._peak = max(self._peak, memory)
                vitals = replace(vitals, memory_bytes=memory)
            if Controller.PROCESSES in missing:
                vitals = replace(vitals, processes=sample.processes)
            if Controller.CPU in missing:
                vitals = replace(vitals, cpu_seconds=sample.cpu_seconds)
        if self._has(Controller.PROCESSES):
            vitals = replace(vitals, processes=max(0, vitals.processes - (OWN_PROCESSES - 1)))
        self._peak = max(self._peak, vitals.memory_peak_bytes)
        self._seconds = max(self._seconds, vitals.cpu_seconds)  # what an ended process used is no longer in /proc
        return replace(reading, vitals=replace(vitals, memory_peak_bytes=self._peak, cpu_seconds=self._seconds))

    def _has(self, controller: Controller) -> bool:
        return self._group is not None and self._group.has(controller)

    def _exceeded(self) -> Reason | None:
        vitals, bounds = self._last.vitals, self._bounds
        if self._last.killed or (_over(vitals.memory_bytes, bounds.memory_bytes) and not self._has(Controller.MEMORY)):
            return Reason.MEMORY_LIMIT
        if self._last.refused > _MAX_REFUSED:
            return Reason.PROCESS_LIMIT
        if _over(vitals.processes, bounds.processes) and not self._has(Controller.PROCESSES):
            return Reason.PROCESS_LIMIT
        if _over(vitals.cpu_seconds, bounds.cpu_seconds):
            return Reason.CPU_LIMIT
        return None

    def _pause(self, before: ControlGroupUsage, elapsed: float) -> float:
        """Return how long to wait: until half of what is left could be used up at the current rate, within bounds."""
        shortest, longest = self._pace
        now, then, bounds = self._last.vitals, before.vitals, self._bounds
        self._interval = min(self._interval * _QUIET, longest)
        for used, earlier, limit in (
            (now.memory_bytes, then.memory_bytes, bounds.memory_bytes),
            (now.processes, then.processes, bounds.processes),
        ):
            if limit is not None and used > earlier and elapsed > 0:
                rate = (used - earlier) / elapsed
                self._interval = min(self._interval, max(shortest, (limit - used) / rate / 2))
        if bounds.cpu_seconds is not None:
            until_spent = (bounds.cpu_seconds - now.cpu_seconds) / (os.cpu_count() or 1)
            return min(self._interval, max(shortest, until_spent))
        return self._interval

    def _report(self, now: float) -> None:
        vitals = self._last.vitals
        if now < self._report_at or self._writer.is_waiting or not _differ(vitals, self._reported):
            return
        self._writer.fields(
            EventKind.VITALS, **{name: value for name, value in asdict(vitals).items() if value is not None}
        )
        self._reported = vitals
        self._report_at = now + max(_REPORT_S, (now - self._began) * _REPORT_SHARE)


def _over(used: float, limit: int | None) -> bool:
    return limit is not None and used > limit


def _differ(one: Vitals, other: Vitals) -> bool:
    """Return whether the difference is worth an event."""
    if one.processes != other.processes or one.cpu_seconds - other.cpu_seconds > _CHANGED:
        return True
    return abs(one.memory_bytes - other.memory_bytes) > _CHANGED * max(one.memory_bytes, other.memory_bytes)
