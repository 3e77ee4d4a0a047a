"""What a model is told when a budget is nearly spent: on every wire, beside all that was said to it before."""

import json
from typing import Any

import pytest

from services.agent.providers import ModelWire
from services.execution.door.notice import LAST, told

TOOL = {"type": "tool_result", "tool_use_id": "t", "content": "done"}


@pytest.mark.parametrize(
    ("wire", "fields", "said"),
    [
        (
            ModelWire.MESSAGES,
            {"messages": [{"role": "user", "content": "Go."}]},
            [{"role": "user", "content": [{"type": "text", "text": "Go."}, {"type": "text", "text": LAST}]}],
        ),
        (
            ModelWire.MESSAGES,
            {"messages": [{"role": "user", "content": [TOOL]}]},
            [{"role": "user", "content": [TOOL, {"type": "text", "text": LAST}]}],
        ),
        (
            ModelWire.RESPONSES,
            {"input": "Go."},
            [{"role": "user", "content": "Go."}, {"role": "user", "content": LAST}],
        ),
        (
            ModelWire.RESPONSES,
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            [{"type": "function_call_output", "call_id": "c", "output": "x"}, {"role": "user", "content": LAST}],
        ),
        (
            ModelWire.CHAT,
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]},
            [{"role": "tool", "content": "x", "tool_call_id": "c"}, {"role": "user", "content": LAST}],
        ),
        (
            ModelWire.GEMINI,
            {"contents": [{"parts": [{"text": "Grüße 🙂"}]}]},
            [{"parts": [{"text": "Grüße 🙂"}, {"text": LAST}]}],
        ),
    ],
)
def test_a_model_is_told_at_the_end_of_what_is_said_to_it(wire: ModelWire, fields: dict[str, Any], said: list) -> None:
    others = {"model": "m", "stream": True, "unknown": {"kept": [1, 2.5, None]}}
    name = next(iter(fields))
    assert json.loads(told(wire, json.dumps({**others, **fields}).encode())) == {**others, name: said}


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (ModelWire.MESSAGES, b""),
        (ModelWire.MESSAGES, b"{}"),
        (ModelWire.MESSAGES, b'{"messages": []}'),
        (ModelWire.MESSAGES, b'{"messages": [{"role": "assistant", "content": "I begin"}]}'),
        (ModelWire.MESSAGES, b'{"messages": ["text"]}'),
        (ModelWire.MESSAGES, b'{"messages": [{"role": "user", "content": 5}]}'),
        (ModelWire.GEMINI, b'{"contents": {"parts": []}}'),
        (ModelWire.RESPONSES, b"no JSON"),
    ],
)
def test_a_request_without_a_place_for_it_stays_as_it_is(wire: ModelWire, body: bytes) -> None:
    assert told(wire, body) == body
