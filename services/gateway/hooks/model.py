"""What a hook is."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

DEFAULT_TIMEOUT = timedelta(seconds=30)
MAX_TIMEOUT = timedelta(minutes=10)
MAX_COMMAND_BYTES = 64 * 1024


class HookEvent(enum.StrEnum):
    """When a hook is called; the names are those of the contract, without prefix."""

    PRE = "PRE"
    POST = "POST"
    ERROR = "ERROR"


class FailurePolicy(enum.StrEnum):
    """What becomes of a job when its hook fails."""

    FAIL = "FAIL"
    IGNORE = "IGNORE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Something to call in the life of a project's jobs. Times are in UTC; `remove_time` is None while it is in force.

    Either `command` or `url` is not empty; a webhook, with a URL, has a `secret` too, which stands in no text of this
    object. Called by ascending `order`, then by age.
    """

    hook_id: str
    project_id: str
    event: HookEvent
    command: str = ""
    url: str = ""
    secret: str = field(default="", repr=False)
    failure_policy: FailurePolicy = FailurePolicy.FAIL
    order: int = 0
    timeout: timedelta = DEFAULT_TIMEOUT
    create_time: datetime
    remove_time: datetime | None = None
