"""What came out of an execution, and an execution as the ledger keeps it."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

from services.agent.usage import ModelUsageSum, UsageSum
from services.common.caveats import CAVEATS, CaveatKind, told
from services.common.display import one_line
from services.lifecycle.model.states import ExecutionState, Purpose
from services.lifecycle.model.value import Recorded


class ChangeKind(enum.StrEnum):
    """What happened to a file; the values are git's letters."""

    ADDED = "A"
    MODIFIED = "M"
    DELETED = "D"
    RENAMED = "R"
    TYPE = "T"


@dataclass(frozen=True, slots=True)
class FileChange(Recorded):
    """One file of a result."""

    path: bytes
    change: ChangeKind
    old_path: bytes = b""
    additions: int | None = None
    deletions: int | None = None


@dataclass(frozen=True, slots=True)
class DiffSummary(Recorded):
    """The differences between base and result, cut to what is kept."""

    files: tuple[FileChange, ...] = ()
    total_files: int = 0
    diff: bytes = b""
    diff_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Caveat(Recorded):
    """In what a base or a result differs from what it was made of: the first of the paths, and how many there are."""

    kind: CaveatKind
    paths: tuple[bytes, ...] = ()
    total_paths: int = 0
    detail: str = ""

    @property
    def is_loss(self) -> bool:
        """True when work is missing from the result."""
        return CAVEATS[self.kind].is_loss

    @property
    def is_lack(self) -> bool:
        """True when an agent works without something that the repository has."""
        return CAVEATS[self.kind].is_lack

    @property
    def is_of_base(self) -> bool:
        """True when it is about what the agent was given."""
        return CAVEATS[self.kind].is_of_base

    def __str__(self) -> str:
        paths = [one_line(path.decode(errors="surrogateescape")) for path in self.paths]
        return told(self.kind, paths, self.total_paths, self.detail)


@dataclass(frozen=True, slots=True)
class Verification(Recorded):
    """A check that we ran; `duration` in seconds, `message` for people where it did not pass."""

    execution_id: str
    passed: bool
    exit_code: int | None = None
    reason: str = ""
    duration: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Artifact(Recorded):
    """A file that is kept beside the result."""

    name: str
    size_bytes: int
    sha256: str


class OmissionReason(enum.StrEnum):
    """Why a file that the policy names is not kept."""

    NO_SUCH_FILE = "NO_SUCH_FILE"
    TOO_LARGE = "TOO_LARGE"
    TOO_MANY = "TOO_MANY"
    UNREADABLE = "UNREADABLE"
    NOT_A_FILE = "NOT_A_FILE"
    UNUSABLE_NAME = "UNUSABLE_NAME"


@dataclass(frozen=True, slots=True)
class OmittedArtifact(Recorded):
    """A file that is not kept, or a pattern that names none."""

    name: str
    reason: OmissionReason


@dataclass(frozen=True, slots=True)
class ArtifactSummary(Recorded):
    """The files that are kept beside the result, and those that are not: the first of each, and how many there are."""

    kept: tuple[Artifact, ...] = ()
    total: int = 0
    total_bytes: int = 0
    omitted: tuple[OmittedArtifact, ...] = ()
    total_omitted: int = 0


@dataclass(frozen=True, slots=True)
class Output(Recorded):
    """The output of an execution, as far as its job has come."""

    summary: str = ""
    changes: DiffSummary = field(default_factory=DiffSummary)
    verification: Verification | None = None
    base_commit_id: str = ""
    commit_id: str = ""
    snapshot_id: str = ""
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
    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    pull_request_url: str = ""
    pull_request_number: int = 0
    review_comment: str = ""
    artifacts: ArtifactSummary = field(default_factory=ArtifactSummary)
    caveats: tuple[Caveat, ...] = ()
    agent_commits: int = 0
    processes_left: int | None = None
    claimed_tokens: int | None = None
    claimed_cost_usd: float | None = None
    reported: bool = False
    """True when a client's word is all that is known of it."""
    usage: tuple[ModelUsageSum, ...] = ()

    @property
    def known_usage(self) -> tuple[ModelUsageSum, ...]:
        """What is known of `usage`: where only its sums are, they are of an unknown model, and of no day."""
        if self.usage or not (self.tokens_used or self.cost_usd):
            return self.usage
        requests = self.turns or 1
        unpriced = requests if self.cost_usd is None else 0
        sums = UsageSum(requests, unpriced_requests=unpriced, tokens=self.tokens_used or 0, cost_usd=self.cost_usd)
        return (ModelUsageSum("", "", "", sums),)

    @property
    def incomplete(self) -> bool:
        """True when something of the working tree is not in the result."""
        return any(caveat.is_loss for caveat in self.caveats)


@dataclass(frozen=True, slots=True)
class ExecutionNote(Recorded):
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
