"""What the runner gives an engine to drive an agent with."""

from dataclasses import dataclass

from services.execution.cgroups.group import ControlGroup
from services.execution.eventlog import EventWriter
from services.execution.model import Plan
from services.execution.rundir.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run, whose lock is held. This process is in `group`, if there is one, and must leave it soon."""

    run: RunDirectory
    plan: Plan
    writer: EventWriter
    signal_fd: int
    """Becomes readable when a signal has arrived: see `processes.signals`."""
    credentials: bytes
    """What the service gives the engine to reach its model; empty for an engine that needs no model."""
    group: ControlGroup | None
