"""Single values, as every shape writes them."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Shape = dict[str, Any]


def line(shape: Shape) -> str:
    """Write one object as one line of ASCII."""
    return json.dumps(shape)


def path(value: str, raw: bytes = b"") -> str | None:
    """Read a path, whose bytes are in `raw` when it is not UTF-8; None when it is empty."""
    return raw.decode("utf-8", "surrogateescape") or value or None


def paths(values: Sequence[str], raw: Sequence[bytes]) -> list[str]:
    """Read paths; `raw` has the bytes of those that are not UTF-8, and is empty where all are."""
    return [path(value, raw[index] if raw else b"") or "" for index, value in enumerate(values)]


def name(name_of: Callable[[Any], str], number: int, prefix: str = "STATE_") -> str:
    """Return a state's name without its prefix, or UNKNOWN_<number> for a state that is newer than this program."""
    try:
        return name_of(number).removeprefix(prefix)
    except ValueError:
        return f"UNKNOWN_{number}"


def time(value: Timestamp) -> str:
    """Write a time."""
    return value.ToJsonString()


def time_of(message: Message, field: str) -> str | None:
    """Write the time in a field; None where it is not set."""
    return time(getattr(message, field)) if message.HasField(field) else None


def known(message: Message, field: str) -> Any:  # noqa: ANN401 - a field's value
    """Return a field's value, including 0; None where it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def content(key: str, value: bytes) -> Shape:
    """Write bytes that are usually text: as `key` if they are UTF-8, else in base64 as `key`_base64."""
    try:
        return {key: value.decode()}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(value).decode()}
