"""What coordinators send and receive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.gateway.values.catalog import Project, Repository, WorkItem, WorkItemState
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.hooks import Hook
from services.gateway.values.jobs import JobView


@dataclass(frozen=True, slots=True)
class HeldLease:
    """The lease that a coordinator claims to hold: on a job, with this fence."""

    coordinator_id: str
    job_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class WorkItemTitle:
    """A work item as far as it matters beside another one."""

    work_item_id: str
    title: str


@dataclass(frozen=True, slots=True)
class WorkContext:
    """Everything that is needed to do a job; `related` holds the work item's related items that still exist."""

    view: JobView
    project: Project
    work_item: WorkItem | None
    related: Sequence[WorkItem]
    repository: Repository | None
    hooks: Sequence[Hook]
    secrets: Mapping[str, str]
    by_state: Mapping[WorkItemState, Sequence[WorkItemTitle]]
    """The project's work items in each state, newest first: the first of them."""


def coordinator_cell(coordinator_id: str, *, host: str = "", version: str = "", capacity: int = 0) -> Cell:
    """Return a coordinator's cell; as it has no gateway, its address is empty and nobody can call it."""
    return Cell(
        cell_id=coordinator_id,
        kind=CellKind.COORDINATOR,
        host=host,
        version=version,
        capacity=capacity,
        address="",
        peer_token="",
    )
