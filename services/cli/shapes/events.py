"""What happened in an execution, and what was answered to it."""

from boatyard.execution.v1 import event_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

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
    return {field.name: None if value == "" and field.name not in _VERBATIM else value}
