"""The values of a job's life. Plain data: `dump` makes JSON of each, and `load` the same value of that."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter

from services.common.sandbox.spec import Network, Tier

MODEL_ENGINE = "anthropic"
"""The engine that asks a model; every other runs a command."""


class JobState(enum.StrEnum):
    """Where a job stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class ExecutionState(enum.StrEnum):
    """Where an execution stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self not in {ExecutionState.PENDING, ExecutionState.RUNNING}


class StageState(enum.StrEnum):
    """How a stage goes."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


class Purpose(enum.StrEnum):
    """What an execution is for."""

    AGENT = "AGENT"
    VERIFY = "VERIFY"
    HOOK = "HOOK"


class HookEvent(enum.StrEnum):
    """When a hook is called: before a job, when it is to end SUCCEEDED, when it is to end FAILED."""

    PRE = "PRE"
    POST = "POST"
    ERROR = "ERROR"


class PromptDelivery(enum.StrEnum):
    """How a command gets its prompt."""

    STDIN = "STDIN"
    ARGUMENT = "ARGUMENT"


class Publish(enum.StrEnum):
    """What becomes of a result."""

    PUSH = "PUSH"
    NONE = "NONE"


class Retention(enum.StrEnum):
    """What becomes of a workspace when its job has ended."""

    KEEP_FAILED = "KEEP_FAILED"
    KEEP = "KEEP"
    REMOVE = "REMOVE"


class _Value:
    """JSON has no bytes: they are base64 there."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AgentSettings(_Value):
    """How an agent runs, everything decided: template, worker and job overlaid on these defaults. Times in seconds."""

    engine: str = "command"
    command: str = ""
    prompt_delivery: PromptDelivery = PromptDelivery.STDIN
    system_prompt: str = ""
    model: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 3600.0
    idle_timeout: float | None = None
    sandbox_tier: Tier = Tier.BUBBLEWRAP
    network: Network = Network.NONE
    max_turns: int | None = None
    max_tokens: int | None = None
    token_budget: int | None = None


@dataclass(frozen=True, slots=True)
class Policy(_Value):
    """What happens around the agent's work, everything decided. Times in seconds."""

    verify_command: str = ""
    verify_timeout: float = 600.0
    publish: Publish = Publish.PUSH
    retention: Retention = Retention.KEEP_FAILED


@dataclass(frozen=True, slots=True)
class Order(_Value):
    """A job as it was admitted; nothing of it changes. Ids that are empty name nothing.

    `prompt` is what the caller asked, `task` what the agent is told: the same, or built with the work item around it.
    """

    job_id: str
    project_id: str
    kind: str
    prompt: str
    task: str
    create_time: datetime
    priority: int = 0
    repository_id: str = ""
    revision: bytes = b""
    branch: bytes = b""
    worker_id: str = ""
    worker_name: str = ""
    work_item_id: str = ""
    template_id: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: Policy = field(default_factory=Policy)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remote(_Value):
    """A repository as the git service is to reach it. Never written down here: `token` may be a secret."""

    repository_id: str
    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Hook(_Value):
    """Something to call: a line for /bin/sh, or else a server's URL. `timeout` in seconds, of a URL for each try.

    `must_succeed` is its failure policy: whether the job fails with it. A webhook's key is never written down here.
    """

    hook_id: str
    command: str
    timeout: float
    event: HookEvent = HookEvent.PRE
    url: str = ""
    must_succeed: bool = True


@dataclass(frozen=True, slots=True)
class Hooks(_Value):
    """The hooks that a job calls: fixed when it begins. In the order of their calls, those of all events together."""

    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class Called(_Value):
    """What a hook that has not failed has answered, for people."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings(_Value):
    """What a driver needs beside the order, as it is now."""

    remote: Remote | None
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class Layout(_Value):
    """Where a workspace's files are: a directory, or layers, stacked at `mounted_path` or (empty) by each sandbox."""

    path: bytes = b""
    lowers: tuple[bytes, ...] = ()
    upper: bytes = b""
    work: bytes = b""
    mounted_path: bytes = b""


@dataclass(frozen=True, slots=True)
class Base(_Value):
    """A prepared tree of one commit: its layers, the topmost first, and the directory in which its users are told."""

    commit_id: str
    layers: tuple[bytes, ...]
    read_only_paths: tuple[bytes, ...]
    pins_path: bytes = b""


@dataclass(frozen=True, slots=True)
class ModelAgent(_Value):
    """A model as the agent, and how far it may go; None is the node's default."""

    model: str
    system_prompt: str
    max_turns: int | None
    max_tokens: int | None
    token_budget: int | None


@dataclass(frozen=True, slots=True)
class Launch(_Value):
    """A program to be run in a workspace, or with `model` that: what a node is asked to start. Times in seconds."""

    purpose: Purpose
    layout: Layout
    argv: tuple[bytes, ...]
    prompt: bytes
    timeout: float
    tier: Tier
    network: Network = Network.NONE
    read_only_paths: tuple[bytes, ...] = ()
    environment: Mapping[str, bytes] = field(default_factory=dict)
    delivery: PromptDelivery = PromptDelivery.STDIN
    idle_timeout: float | None = None
    model: ModelAgent | None = None


@dataclass(frozen=True, slots=True)
class ModelUse(_Value):
    """What a model used and did; `cost_usd` is None where a price is not known."""

    tokens: int
    cost_usd: float | None
    turns: int
    tool_calls: int
    last_words: str


@dataclass(frozen=True, slots=True)
class Run(_Value):
    """How an execution stands at its node."""

    execution_id: str
    state: ExecutionState
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    last_sequence: int = 0
    output_bytes: int = 0
    model_use: ModelUse | None = None


@dataclass(frozen=True, slots=True)
class Ended(_Value):
    """An execution that has ended, and the last bytes that it wrote."""

    run: Run
    log_tail: bytes


@dataclass(frozen=True, slots=True)
class Taken(_Value):
    """What was taken out of a workspace; `commit_id` is the base's when nothing has changed."""

    commit_id: str
    changed: bool
    lost_repositories: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FileChange(_Value):
    """One file of a result; `change` is git's letter."""

    path: bytes
    change: str
    old_path: bytes = b""
    additions: int | None = None
    deletions: int | None = None


@dataclass(frozen=True, slots=True)
class Changes(_Value):
    """What differs between base and result, cut to what is kept."""

    files: tuple[FileChange, ...] = ()
    total_files: int = 0
    diff: bytes = b""
    diff_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Verification(_Value):
    """A check that we ran; `duration` in seconds, `message` for people where it did not pass."""

    execution_id: str
    passed: bool
    exit_code: int | None = None
    reason: str = ""
    duration: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Output(_Value):
    """What came out of an execution, as far as its job has come."""

    summary: str = ""
    changes: Changes = field(default_factory=Changes)
    verification: Verification | None = None
    base_commit_id: str = ""
    commit_id: str = ""
    branch: bytes = b""
    pushed: bool = False
    log_tail: bytes = b""
    output_bytes: int = 0
    exit_code: int | None = None
    signal: int | None = None
    tokens_used: int | None = None
    cost_usd: float | None = None
    tool_calls: int | None = None
    turns: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionNote(_Value):
    """An execution as the ledger keeps it."""

    execution_id: str
    purpose: Purpose
    workspace_id: str = ""
    state: ExecutionState = ExecutionState.PENDING
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    output: Output = field(default_factory=Output)


@dataclass(frozen=True, slots=True)
class Nothing(_Value):
    """The result of a stage that has none."""


@dataclass(frozen=True, slots=True)
class Failure(_Value):
    """Why something failed: a reason of the catalogue, and words for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome(_Value):
    """How a job ends; `failure` where it FAILED."""

    state: JobState
    failure: Failure | None = None


Value = TypeVar("Value", bound=_Value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a class of this module
    return TypeAdapter(kind)


def dump(value: _Value) -> str:
    """Write a value as JSON, in ASCII (a database may refuse what Unicode allows)."""
    kind: Any = type(value)
    text: str = _adapter(kind).dump_json(value, ensure_ascii=True).decode()
    return text


def load(kind: type[Value], text: str) -> Value:
    """Read what `dump` wrote. Fields that this version does not know are skipped, new ones have their defaults."""
    known: Any = kind
    value: Value = _adapter(known).validate_json(text)
    return value
