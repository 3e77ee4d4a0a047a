"""The errors that services answer with.

Domain code raises these; `rpc/layers` turns them into a gRPC status with `google.rpc` details, and
`rpc/status.service_error` turns that back into the same class on the caller's side.

    ServiceError
    ├── Invalid              INVALID_ARGUMENT     bad input, every violation at once
    ├── NotFound             NOT_FOUND
    ├── AlreadyExists        ALREADY_EXISTS
    │   └── RequestIdReused                       the caller's id was used with another request
    ├── FailedPrecondition   FAILED_PRECONDITION  the thing is in the wrong state
    ├── Aborted              ABORTED              a race was lost: read again, then retry
    ├── OutOfRange           OUT_OF_RANGE         no such position, or no longer
    ├── Exhausted            RESOURCE_EXHAUSTED   a queue is full or a quota is used up
    ├── Unauthenticated      UNAUTHENTICATED
    ├── PermissionDenied     PERMISSION_DENIED
    ├── DeadlineExceeded     DEADLINE_EXCEEDED    only raised in `services/common`
    ├── Unavailable          UNAVAILABLE          only raised in `services/common`
    └── RemoteFailure        whatever another service failed with that is not for our callers' eyes

`reason` is UPPER_SNAKE, unique, and documented at the RPCs that answer with it. The message is public: it is written
for the caller, and everything dynamic in it is also in `metadata` or in the class's own fields. Long texts are
cut on the wire: about 1000 bytes of the message and 300 of each fact arrive, beginning and end.
"""

import enum
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter

REQUEST_ID = "request_id"
"""What the metadata of an INTERNAL error has: the id under which the service's log has its cause."""

_VIOLATIONS_BYTES = 1200
_TEXT_BYTES = 300
"""Of a field path or a description, on the wire."""
_WIRE_BYTES = 8
"""What the wire adds to a violation: tags and lengths."""
_ENTRY = re.compile(r'\[(?:\d+|".*")\]', re.DOTALL)
"""What a field's path has for the entry of a list or map."""


class Status(enum.StrEnum):
    """gRPC's status codes by name, for code that does not import gRPC."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class StartError(Exception):
    """A program cannot start; the message says what is wrong and how to fix it."""


class ServiceError(Exception):
    """An error for the caller: a status, a machine-readable reason and a message."""

    status: Status = Status.UNKNOWN

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


class Invalid(ServiceError):
    """The request is wrong, whatever the state. `violations` are all (field path, description).

    Of very many some are reported, with the number of the others: an error travels in a call's trailing metadata, where
    gRPC accepts 8 KiB (past 16 KiB the client sees RESOURCE_EXHAUSTED), and each violation is in it four times. The
    many entries of one list or map hide no other field.
    """

    status = Status.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[tuple[str, str]], *, reason: str = "INVALID_FIELDS") -> None:
        violations = _bounded(violations)
        super().__init__(reason, "; ".join(f"{field}: {text}" for field, text in violations))
        self.violations = tuple(violations)


class NotFound(ServiceError):
    """`resource_type` is a word such as "workspace"; the reason is made of it: WORKSPACE_NOT_FOUND."""

    status = Status.NOT_FOUND

    def __init__(self, resource_type: str, resource_name: str, *, because: str = "") -> None:
        super().__init__(
            f"{_upper_snake(resource_type)}_NOT_FOUND",
            f"{resource_type} {resource_name!r} does not exist" + (f": {because}" if because else ""),
            {"resource_type": resource_type, "resource_name": resource_name},
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class AlreadyExists(ServiceError):
    """Something else has this name. The default reason is made of the type: WORKSPACE_EXISTS."""

    status = Status.ALREADY_EXISTS

    def __init__(
        self, resource_type: str, resource_name: str, *, reason: str | None = None, message: str | None = None
    ) -> None:
        super().__init__(
            reason or f"{_upper_snake(resource_type)}_EXISTS",
            message or f"{resource_type} {resource_name!r} already exists",
            {"resource_type": resource_type, "resource_name": resource_name},
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class RequestIdReused(AlreadyExists):
    """The caller's id (of a request, or of the thing itself) was used before, and with another request."""

    def __init__(self, resource_type: str, resource_name: str) -> None:
        super().__init__(resource_type, resource_name)
        self.reason = "REQUEST_ID_REUSED"
        self.message = f"{resource_type} {resource_name!r} was made by a request with other contents"
        self.args = (self.message,)


class FailedPrecondition(ServiceError):
    """`subject` (an id) is in the wrong state; if it has states, the actual and the allowed ones are given as data."""

    status = Status.FAILED_PRECONDITION

    def __init__(
        self,
        reason: str,
        message: str,
        subject: str,
        *,
        state: str | None = None,
        allowed_states: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        data = {"subject": subject, **(metadata or {})}
        if state is not None:
            data |= {"state": state, "allowed_states": ",".join(allowed_states)}
        super().__init__(reason, message, data)
        self.subject = subject


class Aborted(ServiceError):
    """Somebody else was faster: the caller's `expected` is no longer the `actual`."""

    status = Status.ABORTED

    def __init__(self, reason: str, message: str, *, expected: str, actual: str) -> None:
        super().__init__(reason, message, {"expected": expected, "actual": actual})
        self.expected = expected
        self.actual = actual


class OutOfRange(ServiceError):
    """A position outside of the available range: from `first` to before `end`."""

    status = Status.OUT_OF_RANGE

    def __init__(self, first: int, end: int, *, reason: str = "OFFSET_OUT_OF_RANGE") -> None:
        super().__init__(
            reason,
            f"only positions {first} to {end} (exclusive) are held",
            {"first_offset": str(first), "end_offset": str(end)},
        )
        self.first = first
        self.end = end


class Exhausted(ServiceError):
    """No room. With `retry_after` (seconds) it is a queue; with `quota` (whose quota, a subject) do not retry."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        quota: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata)
        self.retry_after = retry_after
        self.quota = quota


class Unauthenticated(ServiceError):
    """The caller sent no token, or an unknown one."""

    status = Status.UNAUTHENTICATED

    def __init__(self, message: str, *, reason: str = "UNAUTHENTICATED") -> None:
        super().__init__(reason, message)


class PermissionDenied(ServiceError):
    """The caller is known but has no permission. Checked before existence."""

    status = Status.PERMISSION_DENIED

    def __init__(
        self, message: str, *, reason: str = "PERMISSION_DENIED", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason, message, metadata)


class DeadlineExceeded(ServiceError):
    """The call's deadline has passed."""

    status = Status.DEADLINE_EXCEEDED

    def __init__(self, message: str, *, reason: str = "DEADLINE_EXCEEDED") -> None:
        super().__init__(reason, message)


class Unavailable(ServiceError):
    """Try again after `retry_after` seconds; a stream goes on at `resume_from`."""

    status = Status.UNAVAILABLE

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after: float = 1.0,
        resume_from: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        where = {} if resume_from is None else {"resume_from": str(resume_from)}
        super().__init__(reason, message, {**(metadata or {}), **where})
        self.retry_after = retry_after
        self.resume_from = resume_from

    def at(self, position: int) -> "Unavailable":
        """Return the same error for a stream that resumes at `position`, unless it has a position already."""
        if self.resume_from is not None:
            return self
        return Unavailable(
            self.reason, self.message, retry_after=self.retry_after, resume_from=position, metadata=self.metadata
        )


def peer_unavailable(reason: str, message: str, metadata: Mapping[str, str]) -> Unavailable:
    """Return the error for callers while the one peer that has what they ask for does not answer."""
    return Unavailable(reason, message, retry_after=5.0, metadata=metadata)


class RemoteFailure(ServiceError):
    """Another service failed internally: INTERNAL, UNKNOWN, UNIMPLEMENTED and the like.

    It may be caught; when it reaches our own callers it becomes INTERNAL, without its text.
    """

    def __init__(self, status: Status, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(reason, message, metadata)
        self.status = status


def _bounded(violations: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return all violations, or as many as fit: of each list and map one first, then of each a second, and so on."""
    if _fitting(violations) == len(violations):
        return violations
    seen: Counter[str] = Counter()
    turns = []
    for violation in violations:
        kind = _ENTRY.sub("[]", violation[0])
        turns.append((seen[kind], violation))
        seen[kind] += 1
    in_turn = [violation for _, violation in sorted(turns, key=itemgetter(0))]
    count = _fitting(in_turn)
    return [*in_turn[:count], ("...", f"and {len(violations) - count} more")]


def _fitting(violations: Sequence[tuple[str, str]]) -> int:
    """Return how many violations, from the first on, fit into an answer; at least one."""
    size = 0
    for count, (field, text) in enumerate(violations):
        size += min(len(field.encode()), _TEXT_BYTES) + min(len(text.encode()), _TEXT_BYTES) + _WIRE_BYTES
        if size > _VIOLATIONS_BYTES and count > 0:
            return count
    return len(violations)


def _upper_snake(words: str) -> str:
    return words.upper().replace(" ", "_").replace("-", "_")
