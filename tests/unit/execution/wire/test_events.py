"""Protobuf reads what we write by hand as it was meant, whatever its content."""

import json

from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.execution.eventlog import EventKind, Record, Stream
from services.execution.service.watching import EventBatch
from services.execution.wire.events import batch_to_proto

times = st.integers(0, 4_000_000_000 * 10**9)
sequences = st.integers(1, 2**62)
outputs = st.builds(
    Record,
    sequence=sequences,
    time_ns=times,
    kind=st.just(EventKind.OUTPUT),
    stream=st.sampled_from([Stream.STDOUT, Stream.STDERR]),
    payload=st.one_of(st.binary(min_size=1, max_size=300), st.sampled_from([127, 128, 16383, 16384, 65536]).map(bytes)),
)
notes = st.builds(
    Record,
    sequence=sequences,
    time_ns=times,
    kind=st.just(EventKind.NOTE),
    stream=st.just(Stream.NONE),
    payload=st.text(max_size=100).map(lambda text: json.dumps({"text": text}).encode()),
)


def event_to_proto(record: Record) -> event_pb2.Event:
    event = event_pb2.Event(
        sequence=record.sequence,
        time=Timestamp(seconds=record.time_ns // 10**9, nanos=record.time_ns % 10**9),
    )
    if record.kind is EventKind.NOTE:
        event.note.text = record.fields()["text"]
    else:
        event.output.stream = event_pb2.OutputChunk.Stream.Value(f"STREAM_{record.stream.name}")
        event.output.data = record.payload
    return event


@given(st.lists(st.one_of(outputs, notes), max_size=6), st.integers(0, 2**62))
def test_a_batch_is_read_as_it_was_meant(records: list[Record], next_sequence: int) -> None:
    expected = pb.WatchEventsResponse(events=map(event_to_proto, records), next_sequence=next_sequence)
    assert pb.WatchEventsResponse.FromString(batch_to_proto(EventBatch(next_sequence, records))) == expected
