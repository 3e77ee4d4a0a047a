"""Questions to people, and what they come to."""

import enum
from dataclasses import dataclass, field

from services.lifecycle.model.output import Output
from services.lifecycle.model.value import Recorded

STAGES = ("base", "start", "verify", "push", "end")
"""Before which a policy may ask. The others belong to one of these: what an agent has done is taken at once."""

MAX_WORDS_BYTES = 16 << 10
"""Of a question, and of what is said with an answer."""


class Origin(enum.StrEnum):
    """Who asks."""

    POLICY = "POLICY"
    AGENT = "AGENT"
    HOOK = "HOOK"


class CheckpointState(enum.StrEnum):
    """Where a question stands; all but PENDING are final."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    CHANGES_REQUESTED = "CHANGES_REQUESTED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Question(Recorded):
    """What a person is asked. `name` is unique in the attempt; `seconds` is how long the question waits.

    `execution_id` is the agent whose work it is about, in its `round` (from 1), and `output` what had come out by then.
    """

    name: str
    origin: Origin
    text: str
    execution_id: str
    seconds: float
    round: int = 1
    takes_changes: bool = False
    output: Output = field(default_factory=Output)


@dataclass(frozen=True, slots=True)
class Decision(Recorded):
    """What a question came to: APPROVED, REJECTED, EXPIRED or CHANGES_REQUESTED; what was said, and by whom."""

    state: CheckpointState
    comment: str = ""
    name: str = ""
