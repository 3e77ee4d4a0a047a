"""What coordinators show and get."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.values.catalog import Project, Repository, WorkItem
from services.gateway.values.hooks import Hook
from services.gateway.values.jobs import JobView


@dataclass(frozen=True, slots=True)
class HeldLease:
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
