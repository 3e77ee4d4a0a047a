"""The states of jobs, executions and stages, and the choices that a policy has."""

import enum
from collections.abc import Mapping
from typing import Final


class JobState(enum.StrEnum):
    """The state of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """True when the state does not change any more."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class ExecutionState(enum.StrEnum):
    """The state of an execution."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """True when the state does not change any more."""
        return self not in {ExecutionState.PENDING, ExecutionState.RUNNING}


class StageState(enum.StrEnum):
    """The state of a stage."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


class Purpose(enum.StrEnum):
    """What an execution is for."""

    AGENT = "AGENT"
    VERIFY = "VERIFY"
    HOOK = "HOOK"


class HookEvent(enum.StrEnum):
    """When a hook is called: before a job, when it is to end SUCCEEDED or FAILED, before or after one of its stages."""

    PRE = "PRE"
    POST = "POST"
    ERROR = "ERROR"
    BEFORE = "BEFORE"
    AFTER = "AFTER"

    @property
    def may_veto(self) -> bool:
        """True when the hook's answer may stop the job."""
        return self in {HookEvent.PRE, HookEvent.BEFORE}


HOOK_STAGES: Final[Mapping[HookEvent, tuple[str, ...]]] = {
    HookEvent.BEFORE: ("base", "workspace", "branch", "start", "take", "diff", "verify", "push"),
    HookEvent.AFTER: ("base", "workspace", "branch", "agent", "take", "diff", "verify", "push"),
}
"""The stages that hooks may be called before and after. The agent runs from `start` to the end of `agent`, so hooks are
called before the one and after the other."""


class Publish(enum.StrEnum):
    """What becomes of a result."""

    PUSH = "PUSH"
    NONE = "NONE"


class Incomplete(enum.StrEnum):
    """What happens to a result that lacks something of the working tree; STRICT is also for what a base lacks."""

    FAIL = "FAIL"
    ACCEPT = "ACCEPT"
    STRICT = "STRICT"


class RetryFrom(enum.StrEnum):
    """What the next attempt of a job begins from."""

    BASE = "BASE"
    SNAPSHOT = "SNAPSHOT"


class Retention(enum.StrEnum):
    """What becomes of a workspace when its job has ended."""

    KEEP_FAILED = "KEEP_FAILED"
    KEEP = "KEEP"
    REMOVE = "REMOVE"
