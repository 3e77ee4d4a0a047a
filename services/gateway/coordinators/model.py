"""What coordinators show and get."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.values.catalog import Project, Repository, WorkItem
from services.gateway.values.cells import Cell, CellKind
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


def coordinator_cell(coordinator_id: str, *, host: str = "", version: str = "", capacity: int = 0) -> Cell:
    """Return the cell that a coordinator is: no gateway, so nobody can ask it for anything."""
    return Cell(
        cell_id=coordinator_id,
        kind=CellKind.COORDINATOR,
        host=host,
        version=version,
        capacity=capacity,
        address="",
        peer_token="",
    )
