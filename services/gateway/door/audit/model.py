"""What is recorded of a call."""

from dataclasses import dataclass
from datetime import datetime

from services.common.errors import Status

OK = "OK"
REFUSED = (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One call. `role` is empty if the caller is not known; a resource is written like job/job-01kb2v."""

    record_id: str
    time: datetime
    caller: str
    token_id: str
    role: str
    origin: str
    cell_id: str
    forwarded_by: str
    method: str
    resources: tuple[str, ...]
    status: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which records to list; a field that is empty or None matches all.

    `after_time` is inclusive, `before_time` exclusive.
    """

    caller: str = ""
    method: str = ""
    resource_id: str = ""
    only_refused: bool = False
    after_time: datetime | None = None
    before_time: datetime | None = None
