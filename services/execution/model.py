"""What an execution is, but not how it is stored, sent or run. Standard library only: runners import it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.agent.limits import NO_LIMITS, Limits
from services.agent.providers import ModelProvider
from services.agent.recordings import Matching
from services.agent.usage import ModelUsageSum
from services.sandbox.spec import Network, SandboxSpec, Tier

EXECUTION_ID_VARIABLE = "BOATYARD_EXECUTION_ID"
"""The variable that tells a program the id of its execution."""

SESSION_VARIABLE = "BOATYARD_SESSION_ID"
LAST_SESSION = "last"
"""The variable that tells a program the session to go on in, and its value where the program has not named it."""

MARK = "BOATYARD_RUN"
"""The variable by which we recognize a run's processes when its runner is lost: see RunDirectory.mark."""


class State(enum.StrEnum):
    """How far an execution has got."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """True when no other state follows."""
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
    SCRATCH_LIMIT = "SCRATCH_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    DISK_FULL = "DISK_FULL"
    """The program never began, for lack of room."""
    SANDBOX_FAILED = "SANDBOX_FAILED"
    RUNNER_LOST = "RUNNER_LOST"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    MODEL_FAILED = "MODEL_FAILED"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    REPLAY_MISMATCH = "REPLAY_MISMATCH"


class EndVerification(enum.StrEnum):
    """How we know that nothing of an execution is left."""

    PID_NAMESPACE = "PID_NAMESPACE"
    CGROUP = "CGROUP"
    SUBREAPER = "SUBREAPER"
    ENVIRONMENT = "ENVIRONMENT"
    CONTAINER = "CONTAINER"


@dataclass(frozen=True, slots=True)
class Bounds:
    """At what point we end a run, counted over all its processes. Seconds and bytes; None means never."""

    wall_timeout_s: float
    idle_timeout_s: float | None
    max_output_bytes: int
    memory_bytes: int | None = None
    processes: int | None = None
    """Processes and threads at once."""
    cpu_seconds: int | None = None
    workspace_bytes: int | None = None
    """How much the files below `workspace` may grow."""
    workspace: str | None = None
    """The host's directory that holds what the program changes in its workspace."""
    scratch_bytes: int | None = None
    """The size of each of the sandbox's directories in memory, which the kernel keeps."""
    home: str | None = None
    """The host's directory that is HOME, which counts whole, beside `workspace`; None when it is in memory."""
    workspace_begins_empty: bool = False
    """True when everything in `workspace` counts, because it holds changes alone."""
    disk_floor_bytes: int = 0
    """What the run's log leaves free on its disk; below it the program waits, once its log has more than a MiB."""
    model_patience_s: float = 120.0
    """How long an outage of its models is waited out before the run ends."""
    model_first_byte_s: float = 120.0
    """How long a provider may say nothing before a stream begins; an answer that comes as a whole has five times as
    long."""


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """The size of a window, in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a runner needs to know, except the credentials of its `engine`.

    `task` is what the engine is asked to do, as JSON that only this engine understands. `secret_names` are the
    variables of the sandbox's environment whose values must not appear in any event; `redacted` are more such values.
    """

    execution_id: str
    engine: str
    sandbox: SandboxSpec
    bounds: Bounds
    task: Mapping[str, Any] | None = None
    secret_names: tuple[str, ...] = ()
    terminal: TerminalSize | None = None
    redacted: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    has_door: bool = False
    """True when the agent reaches models through a door; then its runner is also given their providers."""
    records: bool = False
    """True to record what passes the door."""
    replay: Matching | None = None
    """How the recording beside the plan answers what the agent asks of models; None without one."""
    no_door: str = ""
    """Why the agent has no door although it has providers; its events say so."""
    reserves_model_use: bool = False
    """True when whoever started it has to grant each request to a model before it is sent."""
    heeds_model_gates: bool = False
    """True when it asks in the same way, and sends what nobody answers for."""

    @property
    def asks_before_requests(self) -> bool:
        """True when requests to models are asked for before they are sent."""
        return self.reserves_model_use or self.heeds_model_gates

    @property
    def secrets(self) -> dict[str, bytes]:
        """The values that must not appear in any event, by variable name."""
        return {**self.redacted, **{name: self.sandbox.environment[name] for name in self.secret_names}}


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a model used and did. `cost_usd` is None when a price is not known.

    `claimed_tokens` and `claimed_cost_usd` are what an agent's program says of itself, None when it says nothing.
    """

    tokens: int
    cost_usd: float | None
    turns: int
    tool_calls: int
    last_words: str
    claimed_tokens: int | None = None
    claimed_cost_usd: float | None = None
    usage: tuple[ModelUsageSum, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelOutage:
    """Which provider of models has not answered, and when it may be asked again, as far as it says so."""

    provider: str
    retry_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """What all processes of a run use together: processor seconds, bytes, processes and threads.

    `read_bytes` and `written_bytes`, from and to disks, are None where they are not counted.
    """

    cpu_seconds: float
    memory_bytes: int
    memory_peak_bytes: int
    processes: int
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. At most one of `exit_code` and `signal` is set; times are in nanoseconds since 1970."""

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
    outage_provider: str | None = None
    """The provider whose outage has ended the run; None when none has."""
    outage_until_ns: int | None = None
    """When that provider may be asked again, in nanoseconds since 1970; None when it does not say."""
    session_id: str = ""
    """What the agent's program calls its session, which it has left in HOME; empty where it names none."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a caller asks to run. `digest` identifies the whole specification, to recognize a repetition."""

    execution_id: str
    digest: bytes
    purpose: Purpose
    job_id: str
    plan: Plan
    stdin: bytes
    providers: tuple[ModelProvider, ...] = ()
    """Who serves the agent's models: they are kept in memory only."""
    recording: bytes = field(default=b"", repr=False)
    """What answers in place of providers, as it was sent; empty for none."""
    needs_door: bool = False
    """True when the agent's settings name providers, or it gets a replay, so that it is not to run without its door."""
    asked: Limits = NO_LIMITS
    """What was asked for, as far as that may be refused."""
    leave_out: tuple[str, ...] = ()
    """What its agent leaves in the workspace that is no result, as patterns of a .gitignore file."""
    missing_agent: str = ""
    """Why its agent cannot be started on this machine, and how to fix it; empty when nothing is known to be wrong."""
    converses: bool = False
    """True when its program takes messages and may ask for permission, whatever the traits of its engine."""
    resumes: bool = False
    """True when its agent may go on in the session that its job's agent before it has left in HOME."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution in its current state. Times have a time zone; None means not yet, or never."""

    execution_id: str
    digest: bytes
    purpose: Purpose
    job_id: str
    sandbox_tier: Tier
    create_time: datetime
    network: Network | None = None
    """None: it was recorded by a version that did not say."""
    host_uid: int | None = None
    """The uid of its processes outside of the sandbox; None: the service's own."""
    leave_out: tuple[str, ...] = ()
    """What its agent leaves in the workspace that is no result, as patterns of a .gitignore file."""
    reserves_model_use: bool = False
    """True when whoever started it has to grant each request to a model before it is sent."""
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
    model_outage: ModelOutage | None = None
    """The outage that has ended it, if one has."""
    session_id: str = ""
    """What the agent's program calls its session."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions to list: those that match every field that is not empty."""

    states: frozenset[State] = frozenset()
    job_id: str = ""
