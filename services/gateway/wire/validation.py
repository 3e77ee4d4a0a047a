"""Reads the fields of requests, and collects all violations."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Self, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.ids import ID_RULE, is_id
from services.gateway import scope
from services.gateway.schema.idempotency import IdempotencyKey

KIB: Final = 1024
LINE_CHARACTERS: Final = 255

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_REVISION: Final = re.compile(rb"[^-\x00-\x20\x7f][^\x00-\x20\x7f]{0,254}")

Value = TypeVar("Value")
Number = TypeVar("Number", bound=int)


class Validator:
    """Reads the fields of one request, and raises Invalid with all violations at the end.

        with Validator() as check:
            job_id = check.required_id("job_id", request.job_id)
            page = check.page(request, request.page_size, request.page_token)

    A reading method returns a value of the right type even for an invalid field: use it only after the block.
    """

    def __init__(self) -> None:
        self._violations: list[tuple[str, str]] = []

    @property
    def violations(self) -> Sequence[tuple[str, str]]:
        """What has been noted: each field's path, and what the field must be."""
        return self._violations

    def add(self, field: str, description: str) -> None:
        """Note a violation: the field's path, and what the field must be."""
        self._violations.append((field, description))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None and self._violations:
            raise Invalid(self._violations)

    def part(self, message: Message, field: str) -> None:
        """Require a message inside of a message. If it is missing, its fields still report what they need."""
        if not message.HasField(field):
            self.add(field, "is required")

    def required_id(self, field: str, value: str) -> str:
        """Read an id that must not be empty."""
        if not value:
            self.add(field, "is required")
        return self.optional_id(field, value)

    def optional_id(self, field: str, value: str) -> str:
        """Read an id that may be empty."""
        if value and not is_id(value):
            self.add(field, f"must be {ID_RULE}")
        return value

    def line(self, field: str, value: str, *, required: bool = False) -> str:
        """Read a text of one line and at most 255 characters."""
        if required and not value.strip():
            self.add(field, "is required")
        if len(value) > LINE_CHARACTERS or _CONTROL.search(value):
            self.add(field, f"must be one line of at most {LINE_CHARACTERS} characters")
        return value

    def text(self, field: str, value: str, max_bytes: int, *, required: bool = False) -> str:
        """Read a text of any lines, without NUL, which not every database stores and no program accepts."""
        if required and not value.strip():
            self.add(field, "is required")
        if len(value.encode()) > max_bytes or "\0" in value:
            self.add(field, f"must be at most {max_bytes // KIB} KiB, without NUL characters")
        return value

    def revision(self, field: str, value: str) -> bytes:
        """Read a branch, tag or commit that may be empty; the git service decides whether it is a valid one."""
        revision = value.encode()
        if revision and not _REVISION.fullmatch(revision):
            self.add(field, "must be at most 255 bytes, without spaces and control characters, not beginning with '-'")
        return revision

    def duration(self, field: str, value: Duration, longest: timedelta) -> timedelta:
        """Read a time span of more than 0, to the microsecond."""
        span = timedelta()
        if 0 <= value.seconds <= longest.total_seconds() and 0 <= value.nanos < 1_000_000_000:
            span = timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
        if not timedelta() < span <= longest:
            self.add(field, f"must be more than 0, and at most {longest.total_seconds():.0f} s")
        return span

    def choice(self, field: str, number: Number, choices: Mapping[Number, Value]) -> Value:
        """Read a value of an enum, which must be one of `choices`."""
        if number not in choices:
            self.add(field, f"must be {' or '.join(dict.fromkeys(map(str, choices.values())))}")
            return next(iter(choices.values()))
        return choices[number]

    def choices(self, field: str, numbers: Sequence[Number], choices: Mapping[Number, Value]) -> frozenset[Value]:
        """Read a repeated enum."""
        return frozenset(self.choice(f"{field}[{index}]", number, choices) for index, number in enumerate(numbers))

    def idempotency_key(self, message: Message, request_id: str) -> IdempotencyKey | None:
        """Read the request id of a call, with a digest that tells its message from others; None without an id."""
        if not request_id:
            return None
        if not _REQUEST_ID.fullmatch(request_id):
            self.add("request_id", "must be 1 to 63 of A-Z, a-z, 0-9, '_' and '-'")
        # The same message from a caller who sees other projects may mean another project.
        content = message.SerializeToString(deterministic=True) + repr(sorted(scope.visible() or ())).encode()
        digest = hashlib.sha256(content).digest()
        return IdempotencyKey(request_id, message.DESCRIPTOR.full_name, digest)

    def page(self, message: Message, page_size: int, page_token: str) -> Page:
        """Read which page is asked for. Its token is bound to all other fields of the message, which are the filter."""
        unpaged = type(message)()
        unpaged.CopyFrom(message)
        unpaged.ClearField("page_size")
        unpaged.ClearField("page_token")
        filters = {message.DESCRIPTOR.full_name: unpaged.SerializeToString(deterministic=True)}
        try:
            return Page.parse(page_size, page_token, filters)
        except Invalid as error:
            self._violations += error.violations
            return Page()

    def moment(self, field: str, value: Timestamp) -> datetime:
        """Read a time, to the microsecond."""
        try:
            return value.ToDatetime(UTC)
        except (ValueError, OverflowError):
            self.add(field, "must be a time from the year 1 to 9999")
            return datetime.fromtimestamp(0, UTC)


def required_id(field: str, value: str) -> str:
    """Read an id that must not be empty, when a request has nothing else to check. Raises Invalid."""
    with Validator() as check:
        return check.required_id(field, value)
