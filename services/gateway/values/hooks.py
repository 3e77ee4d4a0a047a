"""Hooks and their calls."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.lifecycle.model import job_context
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import HookEvent

DEFAULT_TIMEOUT = timedelta(seconds=30)


class FailurePolicy(enum.StrEnum):
    """What happens to a job when its hook fails."""

    FAIL = "FAIL"
    IGNORE = "IGNORE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Something to call in the life of jobs. Times are in UTC; `remove_time` is None while it is in force.

    It is called for the jobs that match its whole scope: a project (empty: every one), templates and kinds (empty:
    any). Hooks are called by ascending `order`, then by age. `stage` is set for BEFORE and AFTER only. Either `command`
    or `url` is not empty. A webhook, or (`is_callback`) a server that speaks gRPC, has a URL and a `secret`, which is
    not in the text of this object.
    """

    hook_id: str
    project_id: str
    template_ids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    event: HookEvent
    stage: str = ""
    command: str = ""
    url: str = ""
    secret: str = field(default="", repr=False)
    is_callback: bool = False
    failure_policy: FailurePolicy = FailurePolicy.FAIL
    order: int = 0
    timeout: timedelta = DEFAULT_TIMEOUT
    disabled: bool = False
    on_cancel: bool = False
    create_time: datetime
    remove_time: datetime | None = None

    def fits(self, template_id: str, kind: str) -> bool:
        """Return True when it is called for jobs of its project(s) with this template (empty: none) and this kind."""
        return (not self.template_ids or template_id in self.template_ids) and (not self.kinds or kind in self.kinds)

    def to_call(self) -> job_context.Hook:
        """Return the hook as its callers get it: without its secret."""
        return job_context.Hook(
            self.hook_id,
            self.command,
            self.timeout.total_seconds(),
            self.event,
            self.url,
            must_succeed=self.failure_policy is FailurePolicy.FAIL,
            stage=self.stage,
            is_callback=self.is_callback,
            on_cancel=self.on_cancel,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """A call of a hook, as it is shown. `begun` counts its starts: several when a gateway was killed meanwhile."""

    call_id: str
    hook_id: str
    job_id: str
    project_id: str
    attempt: int
    event: HookEvent
    stage: str
    state: CallState
    begun: int
    tries: int
    status: str
    answer: str
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """Which calls to list; empty fields do not filter."""

    project_id: str = ""
    hook_id: str = ""
    job_id: str = ""
    states: frozenset[CallState] = frozenset()
