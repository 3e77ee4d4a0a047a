"""JSON that somebody else wrote: an agent, a model, a hook, a caller. What is ours alone is read with `json.loads`."""

import json
from typing import Any, Final

MAX_DEPTH: Final = 100
"""How deeply arrays and objects may be nested: as deeply as messages of protobuf may be."""


def parse_json(text: str | bytes, *, strict: bool = False) -> Any:  # noqa: ANN401 - any JSON
    """Return the value of a JSON text; `strict` refuses NaN and Infinity, which JSON lacks and Python reads.

    Whole numbers of more digits than Python converts (4300) become floats, as numbers with an exponent do.

    Raises:
        ValueError: it is not JSON, or is nested deeper than MAX_DEPTH, which `json` alone answers with a RecursionError
            here, or later where the value is written again.
    """
    try:
        value = json.loads(text, parse_int=_whole_number, parse_constant=_refuse if strict else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level, depth = [value], 0
    while level := [part for each in level if isinstance(each, dict | list) for part in _parts(each)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
    return value


def most_values(text: bytes | bytearray) -> int:
    """Return a bound for how many values a JSON text has, without reading it: each takes some hundred bytes."""
    return sum(map(text.count, (b",", b"[", b"{")))


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _parts(container: dict[str, Any] | list[Any]) -> list[Any]:
    return [*container.values()] if isinstance(container, dict) else container
