"""A job as it was admitted: everything is decided, and nothing of it changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.common.engines import DEFAULT_ENGINE
from services.common.reasons import REASONS
from services.lifecycle.model.states import PromptDelivery, Publish, Retention, RetryFrom
from services.lifecycle.model.value import Recorded
from services.sandbox.spec import Network, Tier

RETRY_ON: Final = tuple(row.reason for row in REASONS.values() if row.retried_by_default)
"""Failures after which a job is tried again unless its policy says otherwise: of machines and networks, not of work."""

INPUT_DIRECTORY = ".boatyard/input"
"""Where a job's files lie in its workspace, which git does not see."""

INPUT_DATA = ".boatyard/input.json"
"""The file there with the job's data."""

MAX_PROMPT_BYTES: Final = 1 << 20
"""The bound of the whole prompt of an agent."""
MAX_ARGUMENT_BYTES: Final = (128 << 10) - 1
"""The bound of a prompt that is passed as an argument: the kernel's, less the closing NUL."""


@dataclass(frozen=True, slots=True)
class Limits(Recorded):
    """How much an agent's processes may use, all together; None is the node's default. Bytes, seconds."""

    memory_bytes: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None
    output_bytes: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class AgentSpec(Recorded):
    """How an agent runs, with template, worker and job overlaid on these defaults. Times are in seconds."""

    engine: str = DEFAULT_ENGINE
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
    limits: Limits = field(default_factory=Limits)
    terminal: bool = False
    ask_before: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    image: str = ""


@dataclass(frozen=True, slots=True)
class JobPolicy(Recorded):
    """What happens around the agent's work, with all layers overlaid on these defaults. Times are in seconds."""

    verify_command: str = ""
    verify_timeout: float = 600.0
    publish: Publish = Publish.PUSH
    retention: Retention = Retention.KEEP_FAILED
    checkpoints: tuple[str, ...] = ()
    checkpoint_timeout: float = 86400.0
    max_extra_rounds: int = 5
    agent_may_ask: bool = False
    max_attempts: int = 3
    retry_on: tuple[str, ...] = RETRY_ON
    retry_from: RetryFrom = RetryFrom.BASE


@dataclass(frozen=True, slots=True)
class InputFile(Recorded):
    """A file that a job works on, without its content. `name` is its path below `.boatyard/input`."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class JobSpec(Recorded):
    """A job as it was admitted; nothing of it changes but labels, which hooks may add. Ids that are empty name nothing.

    `prompt` is the caller's, `task` is what the agent is given: the prompt, or a text built of it, the work item and
    the input. `not_before` is the earliest time at which it may be claimed; `data` is a JSON object, or empty.
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
    snapshot_id: str = ""
    branch: bytes = b""
    worker_id: str = ""
    worker_name: str = ""
    work_item_id: str = ""
    template_id: str = ""
    agent: AgentSpec = field(default_factory=AgentSpec)
    policy: JobPolicy = field(default_factory=JobPolicy)
    labels: Mapping[str, str] = field(default_factory=dict)
    not_before: datetime | None = None
    files: tuple[InputFile, ...] = ()
    data: bytes = b""
