"""What tools share: reading arguments, and answers of bounded length, in Unicode that can be sent."""

from collections.abc import Mapping
from typing import Any

MAX_CHARACTERS = 30_000
"""The maximum length of an answer. Its beginning and its end are kept, because errors may be in either."""

_HEAD = 10_000


class ToolError(Exception):
    """The call cannot be done; the text is for the model, and says what it can do instead."""


def clipped(text: str) -> str:
    """Cut a text to the maximum length of an answer, and say in it how much is left out."""
    text = text.encode("utf-8", "replace").decode()  # JSON parsers do not agree about lone surrogates
    if len(text) <= MAX_CHARACTERS:
        return text
    tail = MAX_CHARACTERS - _HEAD
    return f"{text[:_HEAD]}\n[… {len(text) - MAX_CHARACTERS} characters left out …]\n{text[-tail:]}"


def text_of(arguments: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return a text among a call's arguments; it is required without `default`. Raises ToolError."""
    value = arguments.get(name, default)
    if not isinstance(value, str):
        raise ToolError(f"{name} is required, as a text")
    return value


def number_of(arguments: Mapping[str, Any], name: str, default: int, lowest: int, highest: int) -> int:
    """Return a whole number among a call's arguments. Raises ToolError."""
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ToolError(f"{name} must be a number from {lowest} to {highest}")
    return int(value)
