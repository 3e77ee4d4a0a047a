"""Lines of agents that are spoken to: what would take too much memory to read is kept, and not read."""

from pathlib import Path
from typing import Any

from services.execution.engines.command.acp import lines
from services.execution.engines.command.acp.lines import Lines
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
