"""Questions to people, and the decisions on them."""

import enum
from dataclasses import dataclass, field

from services.lifecycle.model.output import Output
from services.lifecycle.model.value import Recorded

APPROVAL_STAGES = ("base", "start", "verify", "push", "end")
"""The stages before which a policy may ask. No other stage waits for a person."""

MAX_WORDS_BYTES = 16 << 10
"""The bound of a question's text, and of the comment on a decision."""


class Origin(enum.StrEnum):
    """Who asks."""

    POLICY = "POLICY"
    AGENT = "AGENT"
    HOOK = "HOOK"


class CheckpointState(enum.StrEnum):
    """The state of a question; all but PENDING are final."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    CHANGES_REQUESTED = "CHANGES_REQUESTED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Question(Recorded):
    """What a person is asked. `name` is unique in the attempt; `seconds` is how long the question waits.

    `execution_id` is the agent whose work the question is about, in its `round` (from 1), and `output` its output then.
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
    """The decision on a question: APPROVED, REJECTED, EXPIRED or CHANGES_REQUESTED, with a comment and who decided."""

    state: CheckpointState
    comment: str = ""
    name: str = ""
