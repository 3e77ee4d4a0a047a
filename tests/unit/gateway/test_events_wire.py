"""Stored events are shown, also those from before their texts had to be UTF-8."""

import pytest
from boatyard.execution.v1 import event_pb2
from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.gateway.wire.events import events_from_bytes, events_from_proto

PLACEHOLDER, MALFORMED = "\u00fcXX", b"\xc3\xbc\xff\xfe"


@pytest.mark.parametrize(
    "body",
    [
        {"tool_call": {"tool": "bash", "input": PLACEHOLDER}},
        {"tool_result": {"tool_call_id": "1", "output": PLACEHOLDER}},
        {"permission_request": {"tool": "bash", "input": PLACEHOLDER}},
    ],
)
def test_a_clients_bytes_that_were_stored_as_they_came_are_shown(body: dict[str, dict[str, str]]) -> None:
    events = [event_pb2.Event(sequence=1, **body), event_pb2.Event(sequence=2, output={"data": b"\xff"})]
    stored = b"".join(event.data for event in events_from_proto(pb.AppendEventsRequest(events=events)))
    before = stored.replace(PLACEHOLDER.encode(), MALFORMED)
    assert len(before) == len(stored)
    assert events_from_bytes(stored, 1, ()) == events

    first, second = events_from_bytes(before, 1, ())
    (kind, fields), *_ = body.items()
    name = next(name for name, text in fields.items() if text == PLACEHOLDER)
    assert getattr(getattr(first, kind), name) == "\u00fc\ufffd\ufffd"
    assert second == events[1]
