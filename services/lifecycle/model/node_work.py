"""What node services are asked for and return: bases, workspaces, running programs and taken results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.agent.providers import ModelProvider
from services.agent.recordings import Matching
from services.agent.settings import AgentSettings
from services.agent.usage import ModelUsageSum
from services.lifecycle.model.outcome import ModelOutage
from services.lifecycle.model.output import Caveat
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.model.value import Recorded


@dataclass(frozen=True, slots=True)
class Layout(Recorded):
    """Where a workspace's files are: a directory, or layers, stacked at `mounted_path` or (empty) by each sandbox.

    `home` is the HOME of its agents, empty for one in memory, and `home_is_kept` is True when it is that of the job's
    workspace before.
    """

    path: bytes = b""
    lowers: tuple[bytes, ...] = ()
    upper: bytes = b""
    work: bytes = b""
    mounted_path: bytes = b""
    home: bytes = b""
    home_is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Base(Recorded):
    """A prepared tree: its layers, the topmost first, and the directory that records its users.

    Results are compared with `commit_id`. The tree is that commit's, or a snapshot's that goes back to it: then HEAD
    begins at the last commit in the snapshot that is its agent's own. (Empty, as recorded before decision 47: HEAD
    began at `commit_id`, which was the snapshot's own.)
    """

    commit_id: str
    layers: tuple[bytes, ...]
    read_only_paths: tuple[bytes, ...]
    pins_path: bytes = b""
    caveats: tuple[Caveat, ...] = ()
    head_commit_id: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a node is asked to start in a workspace; `environment` is ours, and overrides the agent's.

    `redacted` are the secrets that the program does not get, and that must not be in what it says all the same. With
    `has_home` its HOME is the layout's, and if it `resumes` it may go on in the session that it has left there.
    """

    purpose: Purpose
    layout: Layout
    agent: AgentSettings
    prompt: bytes
    read_only_paths: tuple[bytes, ...] = ()
    environment: Mapping[str, bytes] = field(default_factory=dict)
    redacted: Mapping[str, str] = field(default_factory=dict, repr=False)
    providers: tuple[ModelProvider, ...] = ()
    """Who answers what the program asks of a model."""
    reserves_model_use: bool = False
    """Whether each request to a model has to be granted before it is sent."""
    heeds_model_gates: bool = False
    """Whether each is asked for in the same way, and sent all the same when nobody answers."""
    replay: Matching | None = None
    """How `recording` answers that in their place; None without one."""
    recording: bytes = field(default=b"", repr=False)
    has_home: bool = False
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class ModelUse(Recorded):
    """What a model used and did; `cost_usd` is None where a price is not known.

    `claimed_tokens` and `claimed_cost_usd` are what the agent's program says of itself, None where it says nothing.
    """

    tokens: int
    cost_usd: float | None
    turns: int
    tool_calls: int
    last_words: str
    claimed_tokens: int | None = None
    claimed_cost_usd: float | None = None
    usage: tuple[ModelUsageSum, ...] = ()

    @property
    def tokens_seen(self) -> int | None:
        """The tokens of all requests; None where only the agent has counted them."""
        return None if not self.tokens and self.claimed_tokens else self.tokens


@dataclass(frozen=True, slots=True)
class ResourceUsage(Recorded):
    """What all processes of an execution used together."""

    cpu_seconds: float
    memory_peak_bytes: int


@dataclass(frozen=True, slots=True)
class Run(Recorded):
    """An execution as its node reports it."""

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
    vitals: ResourceUsage | None = None
    processes_left: int | None = None
    leave_out: tuple[str, ...] = ()
    model_outage: ModelOutage | None = None
    """The outage that has ended it, if one has."""
    reserves_model_use: bool = False


@dataclass(frozen=True, slots=True)
class EndedRun(Recorded):
    """An execution that has ended, and the last bytes that it wrote."""

    run: Run
    log_tail: bytes


@dataclass(frozen=True, slots=True)
class Snapshot(Recorded):
    """The kept state of a workspace: `commit_id` holds it, and equals `base_commit_id` when nothing changed."""

    snapshot_id: str
    repository_id: str
    base_commit_id: str
    commit_id: str
    caveats: tuple[Caveat, ...] = ()

    @property
    def changed(self) -> bool:
        """True when it holds anything that the base does not."""
        return self.commit_id != self.base_commit_id


@dataclass(frozen=True, slots=True)
class ResultCommit(Recorded):
    """The result that was taken from a workspace; `commit_id` is the base's when nothing has changed."""

    commit_id: str
    agent_commits: int = 0
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, slots=True)
class ProtectedChanges(Recorded):
    """The paths that a result changes of those that floors protect: the first, and how many."""

    paths: tuple[bytes, ...] = ()
    total: int = 0
