"""What an agent wrote as JSON, of which nothing is certain: what is not of the kind asked for counts as empty."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

MOST = 2**63 - 1
"""The largest number that databases and messages have room for."""


def an_object(value: object) -> Json:
    """Return an object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> Sequence[Json]:
    """Return the objects in a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """Return a text, or an empty one."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int:
    """Return a whole number from 0 to what databases have room for, or 0."""
    if isinstance(value, float) and value == value and abs(value) < MOST:  # noqa: PLR0124 - NaN
        value = int(value)
    return min(max(value, 0), MOST) if isinstance(value, int) and not isinstance(value, bool) else 0


def dollars(value: object) -> float | None:
    """Return an amount of money, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < MOST else None  # type: ignore[operator, arg-type] # it is one


def as_text(value: object) -> str:
    """Return a text as it is, and anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
