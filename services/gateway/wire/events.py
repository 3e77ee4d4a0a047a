"""Converts events of executions between messages and the bytes that are stored of them."""

from collections.abc import Iterable, Sequence
from typing import Final

from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.gateway.values.events import NumberedEvent
from services.gateway.wire.validation import KIB, Validator

_MAX_EVENTS_BYTES: Final = 2 << 20


def events_from_proto(request: pb.AppendEventsRequest) -> list[NumberedEvent]:
    """Read consecutive events. Raises Invalid."""
    with Validator() as check:
        sequences = [event.sequence for event in request.events]
        if sequences and (sequences[0] < 1 or sequences != list(range(sequences[0], sequences[0] + len(sequences)))):
            check.add("events", "must be numbered from 1, each one more than the one before")
        if request.ByteSize() > _MAX_EVENTS_BYTES:
            check.add("events", f"must be at most {_MAX_EVENTS_BYTES // KIB} KiB in a message")
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
        event
        for event in pb.AppendEventsRequest.FromString(data).events
        if event.sequence >= first and (not names or event.WhichOneof("kind") in names)
    ]
