"""What a tool may say: so much, and in Unicode that can be sent."""

from collections.abc import Mapping
from typing import Any

MAX_CHARACTERS = 30_000
"""Of one answer. Its beginning and its end are kept, for errors stand in either."""

_HEAD = 10_000


class ToolError(Exception):
    """The call cannot be done; the text is for the model, and says what it could do."""


def clipped(text: str) -> str:
    """Cut a text to what may be answered, and say how much is left out."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is nothing that JSON's readers agree on
    if len(text) <= MAX_CHARACTERS:
        return text
    tail = MAX_CHARACTERS - _HEAD
    return f"{text[:_HEAD]}\n[… {len(text) - MAX_CHARACTERS} characters left out …]\n{text[-tail:]}"


def text_of(given: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Read a text among a call's input; required without `default`. Raises ToolError."""
    value = given.get(name, default)
    if not isinstance(value, str):
        raise ToolError(f"{name} is required, as a text")
    return value


def number_of(given: Mapping[str, Any], name: str, default: int, lowest: int, highest: int) -> int:
    """Read a whole number among a call's input. Raises ToolError."""
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ToolError(f"{name} must be a number from {lowest} to {highest}")
    return int(value)
