"""What coordinators show and get."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.catalog.model import Project, Repository, WorkItem
from services.gateway.hooks.model import Hook
from services.gateway.jobs.model import JobView


@dataclass(frozen=True, slots=True)
class Held:
    """What a coordinator says that it holds: a job, under its `fence`th lease."""

    coordinator_id: str
    job_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class WorkContext:
    """All that is needed to do a job; `related` are those of the work item's that are still there."""

    view: JobView
    project: Project
    work_item: WorkItem | None
    related: Sequence[WorkItem]
    repository: Repository | None
    hooks: Sequence[Hook]


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
