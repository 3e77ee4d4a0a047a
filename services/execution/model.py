"""What an execution is, not how it is stored, sent or run. Standard library only: runners import it."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.sandbox.spec import SandboxSpec, Tier

EXECUTION_ID_VARIABLE = "BOATYARD_EXECUTION_ID"
"""The variable by which a program knows its execution."""

MARK = "BOATYARD_RUN"
"""The variable by which we know a run's processes again when its runner is lost: see RunDirectory.mark."""


class State(enum.StrEnum):
    """Where an execution stands in its life."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self not in ACTIVE


ACTIVE = (State.PENDING, State.RUNNING)


class Purpose(enum.StrEnum):
    """What an execution is for."""

    AGENT = "AGENT"
    VERIFY = "VERIFY"
    HOOK = "HOOK"


class Reason(enum.StrEnum):
    """Why an execution FAILED."""

    AGENT_FAILED = "AGENT_FAILED"
    AGENT_NOT_INSTALLED = "AGENT_NOT_INSTALLED"
    TIMED_OUT = "TIMED_OUT"
    IDLE = "IDLE"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    CPU_LIMIT = "CPU_LIMIT"
    DISK_LIMIT = "DISK_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    SANDBOX_FAILED = "SANDBOX_FAILED"
    RUNNER_LOST = "RUNNER_LOST"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    MODEL_FAILED = "MODEL_FAILED"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"


class EndVerification(enum.StrEnum):
    """What tells that nothing of an execution is left."""

    PID_NAMESPACE = "PID_NAMESPACE"
    CGROUP = "CGROUP"
    SUBREAPER = "SUBREAPER"
    ENVIRONMENT = "ENVIRONMENT"
    CONTAINER = "CONTAINER"


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a run is ended by us, all its processes taken together. Seconds and bytes; None means never."""

    wall_timeout_s: float
    idle_timeout_s: float | None
    max_output_bytes: int
    memory_bytes: int | None = None
    processes: int | None = None
    """Processes and threads at once."""
    cpu_seconds: int | None = None
    workspace_bytes: int | None = None
    """By which the files below `workspace` may grow."""
    workspace: str | None = None
    """The host's directory where what the program changes of its workspace lies."""
    workspace_begins_empty: bool = False
    """Whether all that lies there counts: it holds changes alone."""


@dataclass(frozen=True, slots=True)
class ModelTask:
    """What a model is asked to do, and how far it may go. Its sandbox is that of its tools."""

    model: str
    prompt: str
    system_prompt: str
    max_turns: int
    max_tokens: int
    token_budget: int | None
    ask_before: Sequence[str] = ()
    """Tools before each call of which somebody is asked."""


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Of a window, in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a runner needs to know, but for what reaches a model. With a `task` a model is the agent.

    `secret_names` are the variables of the sandbox's environment whose values no event may hold.
    """

    execution_id: str
    sandbox: SandboxSpec
    bounds: Bounds
    task: ModelTask | None = None
    secret_names: tuple[str, ...] = ()
    terminal: TerminalSize | None = None

    @property
    def secrets(self) -> dict[str, bytes]:
        """The values that no event may hold, by name."""
        return {name: self.sandbox.environment[name] for name in self.secret_names}


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a model used and did. `cost_usd` is None when a price is not known."""

    tokens: int
    cost_usd: float | None
    turns: int
    tool_calls: int
    last_words: str


@dataclass(frozen=True, slots=True)
class Vitals:
    """What all processes of a run use together: seconds on a processor, bytes, processes and threads.

    `read_bytes` and `written_bytes`, from and to disks, are None where nobody counts them.
    """

    cpu_seconds: float
    memory_bytes: int
    memory_peak_bytes: int
    processes: int
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. At most one of `exit_code` and `signal` is there; times are in nanoseconds since 1970."""

    state: State
    reason: str
    message: str
    exit_code: int | None
    signal: int | None
    processes_left: int | None
    start_time_ns: int | None
    end_time_ns: int
    last_sequence: int
    output_bytes: int
    model_use: ModelUse | None = None
    end_verified_by: EndVerification | None = None
    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a caller asks to run. `digest` identifies the whole specification, to recognize a repetition."""

    execution_id: str
    digest: bytes
    purpose: Purpose
    job_id: str
    plan: Plan
    stdin: bytes


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as it stands. Times are aware; None means not yet, or never."""

    execution_id: str
    digest: bytes
    purpose: Purpose
    job_id: str
    sandbox_tier: Tier
    create_time: datetime
    state: State = State.PENDING
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    processes_left: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    last_sequence: int = 0
    output_bytes: int = 0
    events_trimmed: bool = False
    model_use: ModelUse | None = None
    end_verified_by: EndVerification | None = None
    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions to list: all that match every part that is not empty."""

    states: frozenset[State] = frozenset()
    job_id: str = ""
