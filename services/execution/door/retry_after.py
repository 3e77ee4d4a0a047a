"""For how long a provider wants to be left alone, as its answer says."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from services.common.untrusted_json import parse_json
from services.execution.door.http import Answer

LONGEST_S: Final = 31 * 86400.0
"""The most that is believed."""

_NUMBER: Final = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_SPAN: Final = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?"
)
_UNITS_S: Final = (86400, 3600, 60, 1, 0.001)
_SINCE_1970_S: Final = 10**9  # a number beyond is a time, and a smaller one a time span
_RETRY_INFO: Final = "google.rpc.RetryInfo"
# Each has what is left of a quota, and when there is all of it again.
_QUOTAS: Final = re.compile(rb"(?:x-ratelimit|anthropic-ratelimit|ratelimit)-(?:([a-z-]+)-)?remaining(-[a-z-]+)?")


def retry_after_s(answer: Answer) -> float | None:
    """Return the seconds until it may be asked again: `Retry-After`, or else the reset of a quota that is used up.

    None when the head of the answer does not say.
    """
    if value := _text(answer, b"retry-after-ms"):
        return _bounded(float(value) / 1000) if _NUMBER.fullmatch(value) else None
    if value := _text(answer, b"retry-after"):
        return _seconds(value)
    resets = [seconds for value in _resets(answer) if (seconds := _seconds(value)) is not None]
    return max(resets, default=None)


def retry_delay_s(body: bytes) -> float | None:
    """Return the delay of a google.rpc.RetryInfo in the body of an error, as Gemini says it; None without one."""
    try:
        value = parse_json(body) if _RETRY_INFO.encode() in body else None
    except ValueError:
        return None
    delays = [
        seconds
        for part in (value if isinstance(value, list) else [value])  # an error of a stream is a list of one
        for detail in _items(_of(_of(part, "error"), "details"))
        if str(_of(detail, "@type")).endswith(_RETRY_INFO)
        and (seconds := _seconds(str(_of(detail, "retryDelay")))) is not None
    ]
    return max(delays, default=None)


def _of(value: object, name: str) -> Any:  # noqa: ANN401 - any JSON
    return value.get(name) if isinstance(value, dict) else None


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _resets(answer: Answer) -> Iterator[str]:
    """Yield when quotas that are used up come back."""
    for name, value in answer.fields:
        if _QUOTAS.fullmatch(name) and value.strip() in (b"0", b"0.0"):
            yield _text(answer, name.replace(b"remaining", b"reset"))


def _text(answer: Answer, name: bytes) -> str:
    return answer.value(name).decode("latin-1").strip()


def _seconds(value: str) -> float | None:
    """Return the seconds of a number, a time span such as 6m0s, or a time of HTTP or RFC 3339; None for others."""
    if _NUMBER.fullmatch(value):
        number = float(value)
        return _bounded(number - time.time() if number > _SINCE_1970_S else number)
    if value and (span := _SPAN.fullmatch(value)):
        return _bounded(sum(unit * float(part or 0) for unit, part in zip(_UNITS_S, span.groups(), strict=True)))
    try:
        when = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
    except (ValueError, OverflowError):  # of a year that no calendar has
        return None
    return _bounded((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_S)
