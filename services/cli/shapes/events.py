"""What happened in an execution, and what was answered to it."""

from typing import Any

from boatyard.execution.v1 import event_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli.shapes.values import Shape, content, name, time

_VERBATIM = {"input", "output"}
"""What a tool was given and answered, which may be an empty text."""


def event(value: event_pb2.Event) -> Shape:
    """Describe one event of an execution's log."""
    kind = value.WhichOneof("kind")
    shape: Shape = {"sequence": value.sequence, "time": time(value.time), "kind": kind or "unknown"}
    if kind == "output":
        return shape | {"stream": stream(value.output), **content("data", value.output.data)}
    if kind is not None:
        body = getattr(value, kind)
        for field in body.DESCRIPTOR.fields:
            shape |= _field(body, field)
    return shape


def stream(output: event_pb2.OutputChunk) -> str:
    """Return which stream it is: stdout or stderr."""
    return name(event_pb2.OutputChunk.Stream.Name, output.stream, "STREAM_").lower()


def permission_answer(value: event_pb2.PermissionAnswer) -> Shape:
    """Describe an answer to a model's permission request."""
    return {
        "kind": "permission_answer",
        "permission_id": value.permission_id,
        "allowed": value.allowed,
        "decided_by": value.decided_by or None,
        "reason": value.reason or None,
    }


def _field(body: Message, field: FieldDescriptor) -> Shape:
    if field.has_presence and not body.HasField(field.name):
        return {field.name: None}
    value = getattr(body, field.name)
    if field.is_repeated:
        return {field.name: [*value]}
    if isinstance(value, bytes):
        return content(field.name, value) if value else {field.name: None}
    if field.is_repeated:
        return {field.name: [_plain(each, field) for each in value]}
    return {field.name: None if value == "" and field.name not in _VERBATIM else _plain(value, field)}


def _plain(value: Any, field: FieldDescriptor) -> Any:  # noqa: ANN401 - a field's value
    """Write a value of a field: a time as text, and a message as an object of its fields."""
    if isinstance(value, Timestamp):
        return time(value)
    if isinstance(value, Message):
        parts: Any = value.DESCRIPTOR.fields
        return {key: shape for part in parts for key, shape in _field(value, part).items()}
    if field.enum_type is not None:
        known, prefix = field.enum_type.values_by_number, field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        return known[value].name.removeprefix(prefix) if value in known else f"UNKNOWN_{value}"
    return value
