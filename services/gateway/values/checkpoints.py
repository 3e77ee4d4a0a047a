"""Checkpoints as they are shown. Times are in UTC."""

from dataclasses import dataclass
from datetime import datetime

from services.lifecycle.model.checkpoint import CheckpointState, Origin
from services.lifecycle.model.output import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Who answered: the caller's name, the address that the call came from, and the client that it was made with."""

    name: str = ""
    peer: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A question, and its answer. `decide_time` is None while it is PENDING."""

    checkpoint_id: str
    job_id: str
    project_id: str
    execution_id: str
    name: str
    origin: Origin
    question: str
    round: int
    takes_changes: bool
    output: Output
    state: CheckpointState
    comment: str
    decider: Decider
    create_time: datetime
    expire_time: datetime
    decide_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFilter:
    """Which checkpoints to list; empty fields do not filter."""

    project_id: str = ""
    job_id: str = ""
    states: frozenset[CheckpointState] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDecision:
    """A person's decision: APPROVED, REJECTED or CHANGES_REQUESTED."""

    state: CheckpointState
    comment: str
    decider: Decider
