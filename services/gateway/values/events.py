"""Events of executions, as coordinators send them and as they are stored."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event in transit: its number, and its bytes. The bytes of consecutive events can be concatenated."""

    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class EventLog:
    """The events of an execution that are held: from `first` until before `next`. No more come once it is complete."""

    first: int
    next: int
    is_complete: bool
