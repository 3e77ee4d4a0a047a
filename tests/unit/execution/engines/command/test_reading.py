"""Lines of agents: nothing of them is lost, and what they mean does not depend on the pieces they come in."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.execution.engines.command import lines
from services.execution.engines.command.lines import JsonLines
from services.execution.eventlog import EventKind, EventReader, EventWriter, Record, Stream
from services.execution.presets.preset import ACP, READERS
from services.execution.service.watching import EventBatch
from services.execution.wire.events import batch_to_proto
from services.redaction.strand import Redactor

OF_JSON = [reader for reader in READERS if reader not in {"text", ACP}]
SECRET = "hunter2-is-a-secret"
KINDS = (
    *("system", "assistant", "user", "result", "thread.started", "turn.started", "turn.completed", "turn.failed"),
    *("item.started", "item.completed", "error", "step_start", "text", "reasoning", "tool_use", "step_finish"),
    *("init", "message", "tool_result", "permission_denied", "api_retry", "tool_use", "server_tool_use", "thinking"),
    *("command_execution", "file_change", "mcp_tool_call", "agent_message", "success", "declined", "web_search"),
)
KEYS = (
    *("type", "subtype", "message", "content", "id", "input", "name", "text", "usage", "item", "part", "state", "role"),
    *("tool", "callID", "tokens", "cost", "status", "error", "output", "is_error", "result", "permission_denials"),
    *("tool_name", "tool_use_id", "stats", "cache", "data", "reason", "total_cost_usd", "input_tokens", "tool_id"),
    *("messageID", "stop_reason", "terminal_reason", "errors", "statusCode", "exit_code", "changes", "attempt"),
)
texts = st.text(max_size=20) | st.sampled_from([*KINDS, SECRET, "\ud800", "\0", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=6),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(KEYS) | texts, values, max_size=6)
known = st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(KINDS), objects)
written = st.lists(
    st.builds(lambda value: json.dumps(value).encode(), known)
    | st.binary(max_size=40)
    | st.sampled_from(
        [b'{"', b"{", b"}", b'{"type": "result"', b"\r", b"[]", b'{"type":' + b"[" * 200 + b"]" * 200 + b"}"]
    ),
    max_size=8,
).map(b"\n".join)


def read(reader: str, pieces: Iterable[bytes]) -> tuple[list[Record], object]:
    """Return all records of output that arrives in pieces, and what the reader says of the end."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "events")
        with EventWriter(path) as writer:
            writer.redactor = Redactor({"PASSWORD": SECRET.encode()})
            output = JsonLines(writer, reader)
            for piece in pieces:
                output.output(Stream.STDOUT, memoryview(piece), 1)
            output.end()
            problem, use = output.problem(), output.events.model_use()
        with EventReader(path) as log:
            records: list[Record] = []
            while more := log.read():
                records += more
    return records, (problem, use)


def told(records: Sequence[Record]) -> list[object]:
    """Return what records say, whatever pieces their output is in."""
    said: list[object] = []
    for record in records:
        if record.kind is not EventKind.OUTPUT:
            said.append((record.kind, record.fields()))
        elif said and isinstance(said[-1], list) and said[-1][0] is record.stream:
            said[-1][1] += record.payload
        else:
            said.append([record.stream, record.payload])
    return said


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("reader", OF_JSON)
@settings(max_examples=15)
@given(written, st.lists(st.integers(0, 1 << 16), max_size=6))
def test_nothing_is_lost_and_the_pieces_do_not_matter(reader: str, data: bytes, cuts: list[int]) -> None:
    whole, end = read(reader, [data] if data else [])
    assert b"".join(record.payload for record in whole if record.kind is EventKind.OUTPUT) == data
    pieces, end_of_pieces = read(reader, cut(data, cuts))
    assert [each for each in told(pieces) if isinstance(each, tuple)] == [
        each for each in told(whole) if isinstance(each, tuple)
    ]
    assert end == end_of_pieces
    batch_to_proto(EventBatch(1, whole))
    assert not any(SECRET.encode() in record.payload for record in whole if record.kind is not EventKind.OUTPUT)


@pytest.mark.parametrize("reader", OF_JSON)
def test_lines_for_programs_are_told_from_others(reader: str) -> None:
    records, _ = read(reader, [b'Warning: {x}\n{"type": "new"}\n', b"{", b'"type":"other"}\n{ not an object\n', b"end"])
    assert [(record.stream, record.payload) for record in records if record.kind is EventKind.OUTPUT] == [
        (Stream.STDOUT, b"Warning: {x}\n"),
        (Stream.RAW, b'{"type": "new"}\n'),
        (Stream.RAW, b"{"),
        (Stream.RAW, b'"type":"other"}\n'),
        (Stream.STDOUT, b"{ not an object\n"),
        (Stream.STDOUT, b"end"),
    ]


@pytest.mark.parametrize("reader", OF_JSON)
def test_what_is_no_json_is_said_and_is_no_success(reader: str) -> None:
    records, (problem, _) = read(reader, [b'{"type": "result", "sub\n'])
    notes = [record.fields()["text"] for record in records if record.kind is EventKind.NOTE]
    assert len(notes) == 1
    assert "is no JSON" in notes[0]
    assert "could not be read" in problem.text


@pytest.mark.parametrize("reader", OF_JSON)
def test_without_a_proper_end_there_is_no_success(reader: str) -> None:
    for data in (b"", b"fine\n", b'{"type": "unknown"}\n', b'{"jsonrpc":"2.0","error":{"code":-32700}}\n'):
        _, (problem, use) = read(reader, [data] if data else [])
        assert problem is not None, data
        assert use.claimed_tokens is None


HUGE = 2**63 - 1
ENDS = {
    "claude": {"type": "result", "usage": dict.fromkeys(("input_tokens", "output_tokens"), HUGE)},
    "codex": {"type": "turn.completed", "usage": dict.fromkeys(("input_tokens", "output_tokens"), HUGE)},
    "gemini": {"type": "result", "stats": {"total_tokens": 10 * HUGE}},
    "opencode": {"type": "step_finish", "part": {"tokens": dict.fromkeys(("input", "output"), HUGE)}},
}


@pytest.mark.parametrize("reader", OF_JSON)
def test_what_an_agent_claims_fits_into_the_record_of_its_end(reader: str) -> None:
    _, (_, use) = read(reader, [json.dumps(ENDS[reader]).encode() + b"\n"] * 3)
    assert use.claimed_tokens == HUGE


def test_an_agent_may_make_as_many_calls_as_it_likes() -> None:
    lines = [{"type": "assistant", "message": {"content": [{"type": "tool_use", "id": f"{n}"}]}} for n in range(5000)]
    lines += [{"type": "system", "subtype": "permission_denied", "tool_use_id": f"{n}"} for n in range(5000)]
    lines += [lines[-1], {"type": "result", "subtype": "success"}]
    _, (problem, use) = read("claude", [json.dumps(line).encode() + b"\n" for line in lines])
    assert use.tool_calls == 5000
    assert "refused 5000 of its tool calls (a tool)" in problem.text


def test_a_long_line_is_kept_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 4096)
    line = b'{"type": "result", "x": "' + b"x" * 10_000 + b'"}\n'
    records, (problem, _) = read("claude", [line[:3000], line[3000:9000], line[9000:] + b'{"type": "system"}\n'])
    assert b"".join(record.payload for record in records if record.kind is EventKind.OUTPUT).startswith(line)
    (note,) = (record.fields()["text"] for record in records if record.kind is EventKind.NOTE)
    assert "too long to be read" in note
    assert "no result" in problem.text
