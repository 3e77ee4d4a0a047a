"""Answers that a handler has written as bytes already, where a message of protobuf would cost copies of much data."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

Response = TypeVar("Response", bound=Message)


def preserialized(kind: type[Response], data: bytes) -> Response:  # noqa: ARG001 - it is the type
    """Return what a handler may send in the place of a `kind` that serializes to `data`; nothing else works on it."""
    return cast("Response", data)


def serializer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Return a handler's own serializer, which lets through what is written."""
    if serialize is None:
        return None
    return lambda answer: answer if isinstance(answer, bytes) else serialize(answer)
