"""Agents that are spoken to may say anything: what they say takes no more memory than there is for it."""

from pathlib import Path
from typing import Any

from services.execution.engines.command.acp import lines
from services.execution.engines.command.acp.lines import Lines
from services.execution.engines.command.acp.updates import Call
from services.execution.engines.command.readers.events import AgentEvents
from services.execution.eventlog import EventReader, EventWriter, Stream


def test_a_line_of_more_values_than_are_read_is_ordinary_output(tmp_path: Path) -> None:
    heads = (b'{"jsonrpc": "2.0", "id": 1, "x": [', b'{"jsonrpc": "2.0", "id": 2, "x": "')
    many = heads[0] + b"[]," * lines._MOST_VALUES + b"[]]}\n"
    long = heads[1] + b"x" * len(many) + b'"}\n'
    taken: list[Any] = []
    with EventWriter(tmp_path / "events") as writer:
        output = Lines(writer, AgentEvents(writer), taken.append)
        for line in (many, long):
            output.output(Stream.STDOUT, line, 0)
        output.end()
    assert [message["id"] for message in taken] == [2], "it is the values that count, and not the bytes"
    kept = b""
    with EventReader(tmp_path / "events") as log:
        while records := log.read():
            kept += b"".join(record.payload for record in records if record.stream is Stream.STDOUT)
    assert kept == many


def test_what_is_held_of_a_call_until_it_is_over_has_bounds() -> None:
    long = "x" * 3_000_000
    shown = [{"type": "content", "content": {"type": "text", "text": long}}]
    call = Call("c")
    call.learn({"title": long, "kind": long, "rawInput": {"a": long}, "content": shown, "rawOutput": {"b": long}})
    held = (call.title, call.kind, str(call.given), call.shown, call.output)
    assert all(0 < len(each) <= 128 * 1024 for each in held)
    assert call.said() == call.shown
    call.learn({"rawInput": {"a": 1}})
    assert (call.given, call.shown) == ({"a": 1}, held[3]), "what an update leaves out stays"
