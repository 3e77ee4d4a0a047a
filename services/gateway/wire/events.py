"""Converts events of executions between messages and the bytes that are stored of them."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import coordinator_pb2 as pb
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from services.common.rpc.rules import Violation
from services.common.text import lossy
from services.gateway.values.events import NumberedEvent

_MAX_EVENTS_BYTES: Final = 2 << 20
_WERE_BYTES: Final = {"ToolCall": "input", "ToolResult": "output", "PermissionRequest": "input"}
"""Fields of events that were bytes, by message: what clients stored in them need not be UTF-8."""


def check_events(request: pb.AppendEventsRequest) -> Iterator[Violation]:
    """Yield what is wrong with a batch of events."""
    sequences = [event.sequence for event in request.events]
    if sequences and (sequences[0] < 1 or sequences != list(range(sequences[0], sequences[0] + len(sequences)))):
        yield "events", "must be numbered from 1, each one more than the one before"
    if request.ByteSize() > _MAX_EVENTS_BYTES:
        yield "events", f"must be at most {_MAX_EVENTS_BYTES >> 20} MiB in a message"


def events_from_proto(request: pb.AppendEventsRequest) -> list[NumberedEvent]:
    """Read consecutive events."""
    # Messages whose bytes are concatenated are one message with the events of all.
    return [
        NumberedEvent(event.sequence, pb.AppendEventsRequest(events=[event]).SerializeToString())
        for event in request.events
    ]


def events_from_bytes(
    data: bytes, first: int, kinds: Iterable["event_pb2.EventKind.ValueType"]
) -> Sequence[event_pb2.Event]:
    """Read stored events from a number on, of some kinds or all."""
    names = {event_pb2.EventKind.Name(kind).removeprefix("EVENT_KIND_").lower() for kind in kinds}
    return [
        event for event in _stored(data) if event.sequence >= first and (not names or event.WhichOneof("kind") in names)
    ]


def _stored(data: bytes) -> Iterable[event_pb2.Event]:
    try:
        return pb.AppendEventsRequest.FromString(data).events
    except DecodeError:
        stored = _stored_before()()
        stored.ParseFromString(data)
        for event in stored.events:
            body = getattr(event, event.WhichOneof("kind") or "time")
            if field := _WERE_BYTES.get(body.DESCRIPTOR.name):
                setattr(body, field, lossy(getattr(body, field)).encode())
        return pb.AppendEventsRequest.FromString(stored.SerializeToString()).events


def _all_below(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """Yield the files that a file needs, each after those that it needs itself; some of them again."""
    for dependency in file.dependencies:
        yield from _all_below(dependency)
        yield dependency


@cache
def _stored_before() -> Any:  # noqa: ANN401 - a class that is made here
    """Return the class of stored events as it was when some of their texts were bytes."""
    pool, events = DescriptorPool(), FileDescriptorProto()
    for file in _all_below(event_pb2.DESCRIPTOR):
        pool.AddSerializedFile(file.serialized_pb)
    event_pb2.DESCRIPTOR.CopyToProto(events)
    for message in events.message_type:
        for field in message.field:
            if _WERE_BYTES.get(message.name) == field.name:
                field.type = FieldDescriptorProto.TYPE_BYTES
    events.message_type.add(name="Stored").field.add(
        name="events",
        number=pb.AppendEventsRequest.EVENTS_FIELD_NUMBER,
        label=FieldDescriptorProto.LABEL_REPEATED,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{event_pb2.Event.DESCRIPTOR.full_name}",
    )
    pool.Add(events)
    return GetMessageClass(pool.FindMessageTypeByName(f"{events.package}.Stored"))
