"""Jobs and executions as they are shown. Times are in UTC; None means not yet, or never."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

from services.gateway.values.budgets import BudgetUse
from services.gateway.values.checkpoints import Checkpoint
from services.lifecycle.model.hook_answers import HookAnswer
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.output import Output
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """A recorded stage; for a call of a hook, with the hook's id and what it added to the job."""

    name: str
    state: StageState
    message: str
    hook_id: str = ""
    added: HookAnswer = field(default_factory=HookAnswer)
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """An execution, with what it belongs to. `branch` is that of the job's result; empty without a repository."""

    execution_id: str
    job_id: str
    job_state: JobState
    job_reason: str
    project_id: str
    template_id: str
    worker_id: str
    work_item_id: str
    repository_id: str
    branch: bytes
    purpose: Purpose
    attempt: int
    workspace_id: str
    cell_id: str
    state: ExecutionState
    reason: str
    message: str
    output: Output
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None


class WaitsFor(enum.StrEnum):
    """What a job that is PENDING waits for. The names are those of the contract, without prefix."""

    NOT_BEFORE = "NOT_BEFORE"
    RETRY = "RETRY"
    CELL = "CELL"
    """The one cell that has what it starts from, and that is away, paused or not ready."""
    NO_PLACE = "NO_PLACE"
    """A free slot: all cells are full, or take no jobs."""
    WORKER_LIMIT = "WORKER_LIMIT"
    """The end of another job: its worker, repository or project runs as many as it may."""
    REPOSITORY_LIMIT = "REPOSITORY_LIMIT"
    PROJECT_LIMIT = "PROJECT_LIMIT"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    """The end of an outage of a provider of models."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a job waits for, and for people why it has to; `cell_id` where it is one cell, jobs where it is a limit."""

    kind: WaitsFor
    message: str
    cell_id: str = ""
    running_job_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job. `executions` are those of its agents, oldest first; `timeline` and `checkpoints` are empty in lists."""

    spec: JobSpec
    state: JobState
    reason: str
    message: str
    cell_id: str
    cancel_requested: bool
    revision: int
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    executions: tuple[ExecutionView, ...]
    timeline: tuple[StageView, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    waiting_for: Waiting | None = None
    budget_use: BudgetUse | None = None


@dataclass(frozen=True, slots=True)
class JobSummary:
    """What shows whether a job has changed."""

    revision: int
    is_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Jobs that have a label, of any value when `values` is empty; with `lacks`, all other jobs."""

    key: str
    values: tuple[str, ...] = ()
    lacks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are meant; empty fields do not filter. `visible` are the caller's projects; None means all."""

    visible: frozenset[str] | None = None
    project_id: str = ""
    states: frozenset[JobState] = frozenset()
    kinds: frozenset[str] = frozenset()
    worker_id: str = ""
    work_item_id: str = ""
    labels: tuple[LabelSelector, ...] = ()
    created_after_time: datetime | None = None
    created_before_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFilter:
    """Which executions to list; empty fields do not filter."""

    project_id: str = ""
    states: frozenset[ExecutionState] = frozenset()
    purposes: frozenset[Purpose] = frozenset()
    job_id: str = ""
    worker_id: str = ""
    work_item_id: str = ""
