"""Calls of hooks, as the ledger keeps them: one record for each call, however often it was tried or begun again."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.lifecycle.model.states import HookEvent
from services.lifecycle.model.value import Recorded


class CallState(enum.StrEnum):
    """The state of a hook's call."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    VETOED = "VETOED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    """Its job's attempt ended during the call, so its result is unknown."""


@dataclass(frozen=True, slots=True)
class HookCall(Recorded):
    """A call of a hook. `call_id` is its key: the same for all tries, and when it is begun again.

    `status` says for people how it was answered, or why it was not; `answer` is the beginning of the answer. `labels`
    are those that the hook sets on the job.
    """

    call_id: str
    hook_id: str
    event: HookEvent
    stage: str = ""
    state: CallState = CallState.RUNNING
    tries: int = 0
    status: str = ""
    answer: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
