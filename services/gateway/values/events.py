"""Events of executions, as coordinators send them and as they are kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event as it travels: its number, and its bytes, which follow on those of the one before."""

    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class EventLog:
    """Which events of an execution are held: from `first` to before `next`; all of them when it is complete."""

    first: int
    next: int
    is_complete: bool
