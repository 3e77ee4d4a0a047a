"""A job as it was admitted: everything is decided, and nothing of it changes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.agent.recordings import Matching
from services.agent.settings import AgentSettings
from services.agent.stored import StoredAgentSettings
from services.common.ids import NO_REMOTE
from services.lifecycle.model.floor import BindingFloor
from services.lifecycle.model.output import Caveat
from services.lifecycle.model.policy import DEFAULT_POLICY, StoredPolicy
from services.lifecycle.model.states import Publish
from services.lifecycle.model.value import Recorded

INPUT_DIRECTORY = ".boatyard/input"
"""Where a job's files lie in its workspace, which git does not see."""

INPUT_DATA = ".boatyard/input.json"
"""The file there with the job's data."""

ASK_FILE = ".boatyard/ask"
"""The file there in which an agent that may ask writes its question. It is there, and empty, from the start."""

MAX_PROMPT_BYTES: Final = 1 << 20
"""The bound of the whole prompt of an agent."""
MAX_ARGUMENT_BYTES: Final = (128 << 10) - 1
"""The bound of a prompt that is passed as an argument: the kernel's, less the closing NUL."""


def kept_under(repository_id: str, project_id: str) -> str:
    """Return the id under which a job's results are kept: its repository's, or one for its project's other jobs."""
    return repository_id or NO_REMOTE + hashlib.sha256(project_id.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class InputFile(Recorded):
    """A file that a job works on, without its content. `name` is its path below `.boatyard/input`."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Replay(Recorded):
    """How a recording answers what a job's agent asks of models, and its size; without the recording."""

    matching: Matching
    size: int


@dataclass(frozen=True, slots=True)
class KeptResult(Recorded):
    """A result of an attempt that has ended, in the store of its cell, and the commit that it is compared with.

    `caveats` are those of the result, without its base's. `ended_as` is the state in which the job had ended.
    """

    commit_id: str
    base_commit_id: str
    agent_commits: int = 0
    caveats: tuple[Caveat, ...] = ()
    ended_as: str = ""


@dataclass(frozen=True, slots=True)
class JobSpec(Recorded):
    """A job as it was admitted. Hooks may add labels, and a person's retry floors. Ids that are empty name nothing.

    `prompt` is the caller's, `task` is what the agent is given: the prompt, or a text built of it, the work item and
    the input. `not_before` is the earliest time at which it may be claimed; `data` is a JSON object, or empty.
    `agent` and `policy` are bound to `floors`. `submitters` are the names of those who submitted and retried it,
    `steered_by` of those who wrote to its agent or typed at its terminal.
    `kept` is a result that a person wants published: no agent works then.
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
    agent: StoredAgentSettings = field(default_factory=AgentSettings)
    policy: StoredPolicy = DEFAULT_POLICY
    labels: Mapping[str, str] = field(default_factory=dict)
    not_before: datetime | None = None
    files: tuple[InputFile, ...] = ()
    data: bytes = b""
    replay: Replay | None = None
    floors: tuple[BindingFloor, ...] = ()
    waive_floors: bool = False
    submitters: tuple[str, ...] = ()
    kept: KeptResult | None = None
    steered_by: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        """True when a result is to be published: by the policy, or because a person wants one that is kept."""
        return self.kept is not None or self.policy.publish is Publish.PUSH

    @property
    def kept_under(self) -> str:
        """The id under which the git service keeps its results."""
        return kept_under(self.repository_id, self.project_id)
