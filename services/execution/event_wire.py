"""What a viewer gets, as it goes over the wire.

Output is most of a flood, and protobuf would copy it three times: into its message, that into the batch, and the batch
into bytes. So what surrounds output is written by hand, and all is joined in one copy. A message of protobuf is a
sequence of fields, each a tag and a value, and a message within another one is its length and its bytes
(https://protobuf.dev/programming-guides/encoding).
"""

from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.rpc.preserialized import preserialized
from services.execution import wire
from services.execution.eventlog import Kind, Record, Stream
from services.execution.talk import Question
from services.execution.watching import Batch

_STREAMS = {
    Stream.NONE: event_pb2.Output.STREAM_UNSPECIFIED,
    Stream.STDOUT: event_pb2.Output.STREAM_STDOUT,
    Stream.STDERR: event_pb2.Output.STREAM_STDERR,
}
_MESSAGES: dict[Kind, type[Message]] = {
    Kind.STATE_CHANGE: event_pb2.StateChange,
    Kind.NOTE: event_pb2.Note,
    Kind.TEXT: event_pb2.Text,
    Kind.THINKING: event_pb2.Thinking,
    Kind.USAGE: event_pb2.Usage,
    Kind.TURN_END: event_pb2.TurnEnd,
    Kind.VITALS: event_pb2.Vitals,
    Kind.NETWORK_DECISION: event_pb2.NetworkDecision,
    Kind.PERMISSION_ANSWER: event_pb2.PermissionAnswer,
    Kind.MESSAGE_DELIVERED: event_pb2.MessageDelivered,
}


def batch(value: Batch) -> pb.WatchEventsResponse:
    """Describe what a viewer gets at once; it can be sent, and not be looked into."""
    parts: list[bytes] = []
    for record in value.records:
        if record.kind is Kind.OUTPUT:
            parts += _output(record)
        else:
            event = _event(record).SerializeToString()
            parts += (_EVENTS, _varint(len(event)), event)
    end = None if value.end is None else wire.execution(value.end)
    parts.append(pb.WatchEventsResponse(end=end, next_sequence=value.next_sequence).SerializeToString())
    return preserialized(pb.WatchEventsResponse, b"".join(parts))


def _output(record: Record) -> tuple[bytes, bytes]:
    """Write an event of output: all that stands before its bytes, and these."""
    size = len(record.payload)
    stream = event_pb2.Output(stream=_STREAMS[record.stream]).SerializeToString()
    output = stream + _DATA + _varint(size)
    event = _head(record).SerializeToString() + _OUTPUT + _varint(len(output) + size) + output
    return _EVENTS + _varint(len(event) + size) + event, record.payload


def _event(record: Record) -> event_pb2.Event:
    """Describe an event of any kind but output."""
    event = _head(record)
    match record.kind:
        case Kind.TOOL_CALL:
            fields = record.fields()
            event.tool_call.MergeFrom(event_pb2.ToolCall(**fields | {"input": fields["input"].encode()}))
        case Kind.TOOL_RESULT:
            fields = record.fields()
            event.tool_result.MergeFrom(event_pb2.ToolResult(**fields | {"output": fields["output"].encode()}))
        case Kind.PERMISSION_REQUEST:
            event.permission_request.MergeFrom(wire.question(Question(**record.fields())))
        case _:
            # What else there is has the contract's own names and types.
            getattr(event, record.kind.name.lower()).MergeFrom(_MESSAGES[record.kind](**record.fields()))
    return event


def _head(record: Record) -> event_pb2.Event:
    seconds, nanos = divmod(record.time_ns, 1_000_000_000)
    return event_pb2.Event(sequence=record.sequence, time=Timestamp(seconds=seconds, nanos=nanos))


def _varint(number: int) -> bytes:
    """Write a number that is not negative: seven bits a byte, the lowest first, the eighth where more follow."""
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*low, number))


def _tag(message: Descriptor, field: str) -> bytes:
    """Return what announces a field whose value has a length."""
    return _varint(message.fields_by_name[field].number << 3 | 2)


_EVENTS = _tag(pb.WatchEventsResponse.DESCRIPTOR, "events")
_OUTPUT = _tag(event_pb2.Event.DESCRIPTOR, "output")
_DATA = _tag(event_pb2.Output.DESCRIPTOR, "data")
