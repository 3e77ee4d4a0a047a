"""Writes what a viewer gets as the bytes that go over the wire.

Most of a flood is output, and protobuf would copy it three times: into its message, that into the batch, and the batch
into bytes. So the fields around output are written by hand, and everything is joined in one copy. A protobuf message is
a sequence of fields, each a tag and a value; a message within another one is its length and its bytes
(https://protobuf.dev/programming-guides/encoding).
"""

from boatyard.agent.v1 import ask_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.rpc.preserialized import preserialized
from services.execution.eventlog import EventKind, Record, Stream
from services.execution.service.watching import EventBatch
from services.execution.wire import responses

_STREAMS = {
    Stream.NONE: event_pb2.OutputChunk.STREAM_UNSPECIFIED,
    Stream.STDOUT: event_pb2.OutputChunk.STREAM_STDOUT,
    Stream.STDERR: event_pb2.OutputChunk.STREAM_STDERR,
    Stream.RAW: event_pb2.OutputChunk.STREAM_RAW,
}
_MESSAGES: dict[EventKind, type[Message]] = {
    EventKind.STATE_CHANGE: event_pb2.StateChange,
    EventKind.NOTE: event_pb2.Note,
    EventKind.TEXT: event_pb2.Text,
    EventKind.THINKING: event_pb2.Thinking,
    EventKind.TOOL_CALL: event_pb2.ToolCall,
    EventKind.TOOL_RESULT: event_pb2.ToolResult,
    EventKind.USAGE: event_pb2.ModelUsage,
    EventKind.TURN_END: event_pb2.TurnEnd,
    EventKind.VITALS: event_pb2.Vitals,
    EventKind.NETWORK_DECISION: event_pb2.NetworkDecision,
    EventKind.PERMISSION_REQUEST: event_pb2.PermissionRequest,
    EventKind.PERMISSION_ANSWER: event_pb2.PermissionAnswer,
    EventKind.MESSAGE_DELIVERED: event_pb2.MessageDelivered,
    EventKind.ASK: ask_pb2.Ask,
    EventKind.ASK_END: event_pb2.AskEnd,
}


def batch_to_proto(value: EventBatch) -> pb.WatchEventsResponse:
    """Convert a batch. The message can be sent, but its fields cannot be read."""
    parts: list[bytes] = []
    for record in value.records:
        if record.kind is EventKind.OUTPUT:
            parts += _output(record)
        else:
            event = _event(record).SerializeToString()
            parts += (_EVENTS, _varint(len(event)), event)
    end = None if value.end is None else responses.EXECUTION.to_proto(value.end)
    parts.append(pb.WatchEventsResponse(end=end, next_sequence=value.next_sequence).SerializeToString())
    return preserialized(pb.WatchEventsResponse, b"".join(parts))


def _output(record: Record) -> tuple[bytes, bytes]:
    """Write an event of output: everything before the output's bytes, and these bytes."""
    size = len(record.payload)
    stream = event_pb2.OutputChunk(stream=_STREAMS[record.stream]).SerializeToString()
    output = stream + _DATA + _varint(size)
    event = _head(record).SerializeToString() + _OUTPUT + _varint(len(output) + size) + output
    return _EVENTS + _varint(len(event) + size) + event, record.payload


def _event(record: Record) -> event_pb2.Event:
    """Convert an event of any kind but output."""
    event = _head(record)
    # The fields of a record have the contract's own names and types.
    getattr(event, record.kind.name.lower()).MergeFrom(_MESSAGES[record.kind](**record.fields()))
    return event


def _head(record: Record) -> event_pb2.Event:
    seconds, nanos = divmod(record.time_ns, 1_000_000_000)
    return event_pb2.Event(sequence=record.sequence, time=Timestamp(seconds=seconds, nanos=nanos))


def _varint(number: int) -> bytes:
    """Write a number that is not negative: seven bits a byte, lowest first; the eighth bit is set when more follow."""
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*low, number))


def _tag(message: Descriptor, field: str) -> bytes:
    """Return the tag of a field whose value begins with its length."""
    return _varint(message.fields_by_name[field].number << 3 | 2)


_EVENTS = _tag(pb.WatchEventsResponse.DESCRIPTOR, "events")
_OUTPUT = _tag(event_pb2.Event.DESCRIPTOR, "output")
_DATA = _tag(event_pb2.OutputChunk.DESCRIPTOR, "data")
