"""Responses that a handler has serialized already, when a protobuf message would copy much data."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

Response = TypeVar("Response", bound=Message)


def preserialized(kind: type[Response], data: bytes) -> Response:  # noqa: ARG001 - it is the type
    """Return a stand-in for the message of type `kind` that serializes to `data`; a handler can only send it."""
    return cast("Response", data)


def serializer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Return a handler's serializer, which passes serialized responses through."""
    if serialize is None:
        return None
    return lambda answer: answer if isinstance(answer, bytes) else serialize(answer)
