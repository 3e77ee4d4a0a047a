"""What makes a request dearer or cheaper than its tokens: read from its answer, priced, and reserved at its worst."""

import json
import os
import re
import select
from typing import Any, cast

import pytest
from boatyard.execution.v1.event_pb2 import ModelUsage

from services.agent.providers import ModelWire
from services.execution.door import terms
from services.execution.door.attempts import Attempt, Serving
from services.execution.door.input_size import FILE_TOKENS, IMAGE_TOKENS, input_tokens
from services.execution.door.mask import Mask
from services.execution.door.memory import Memory
from services.execution.door.prices import cost_usd
from services.execution.door.reports import Reports
from services.execution.door.usage import Usage, UsageReader
from services.execution.door.usage_event import usage_fields
from services.execution.door.wires import Route
from tests.unit.execution.door.test_outages import provider

M, R, C, G = ModelWire.MESSAGES, ModelWire.RESPONSES, ModelWire.CHAT, ModelWire.GEMINI
TOKENS = {
    "input_tokens": 1_000_000,
    "output_tokens": 100_000,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "cache_write_1h_tokens": 0,
    "is_partial": False,
}


def cost(wire: ModelWire, model: str, *, at_most: bool = False, searches: int = 0, **said: Any) -> float | None:
    asked = said.get("terms", ())
    usage = {**TOKENS, "model": model, "terms": asked, "web_searches": searches}
    return cost_usd(wire, usage, at_most=at_most)


@pytest.mark.parametrize(
    ("wire", "model", "said", "times"),
    [
        (M, "claude-opus-5", ("batch",), 0.5),
        (M, "claude-opus-5-20260724", ("fast",), 2.0),
        (M, "claude-opus-5", ("fast", "us"), 2.2),
        (M, "claude-sonnet-5-5", ("fast",), None),
        (M, "claude-sonnet-5-5", ("priority",), None),
        (R, "gpt-5", ("flex",), 0.5),
        (R, "gpt-5", ("priority",), 2.0),
        (C, "gpt-4.1", ("priority",), 1.75),
        (R, "gpt-5-nano", ("priority",), None),
        (R, "gpt-5", ("file_search",), None),
        (R, "gpt-5", ("of tomorrow",), None),
        (G, "gemini-2.5-pro", ("flex",), 0.5),
        (G, "gemini-2.5-pro", ("priority",), None),
    ],
)
def test_a_tier_multiplies_what_tokens_cost_and_an_unknown_one_has_no_price(
    wire: ModelWire, model: str, said: tuple[str, ...], times: float | None
) -> None:
    usual = cost(wire, model)
    assert usual, "the model has a price"
    assert cost(wire, model, terms=said) == (None if times is None else pytest.approx(usual * times))
    at_most = cost(wire, model, terms=said, at_most=True)
    assert at_most == (None if times is None else pytest.approx(usual * max(1.0, times))), (
        "what is cheaper may be refused"
    )


@pytest.mark.parametrize(
    ("wire", "model", "each"),
    [(M, "claude-sonnet-5-5", 0.01), (R, "gpt-5", 0.01), (R, "gpt-4.1", 0.025), (G, "gemini-2.5-pro", None)],
)
def test_searches_cost_beside_tokens(wire: ModelWire, model: str, each: float | None) -> None:
    usual = cost(wire, model) or 0.0
    assert cost(wire, model, searches=3) == (None if each is None else pytest.approx(usual + 3 * each))


COUNTED = {"input_tokens": 1, "output_tokens": 1}
MESSAGE = {"type": "message", "id": "msg_1", "model": "m"}
SEARCHES = [
    {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
    {"type": "web_search_call", "action": {"type": "open_page", "url": "u"}},
    {"type": "web_search_call"},
    {"type": "function_call"},
]


@pytest.mark.parametrize(
    ("wire", "events", "said", "searches"),
    [
        (M, [{"message": {**MESSAGE, "usage": {**COUNTED, "service_tier": "standard"}}}], (), None),
        (
            M,
            [
                {"message": {**MESSAGE, "usage": {**COUNTED, "speed": "fast", "inference_geo": "us"}}},
                {"type": "message_delta", "usage": {"output_tokens": 9, "server_tool_use": {"web_search_requests": 2}}},
            ],
            ("fast", "us"),
            2,
        ),
        (M, [{"message": {**MESSAGE, "usage": {**COUNTED, "service_tier": "batch"}}}], ("batch",), None),
        (M, [{"usage": {**COUNTED, "inference_geo": "global", "server_tool_use": None}}], (), None),
        (
            R,
            [
                {"type": "response.created", "response": {"service_tier": "priority", "usage": None}},
                {"type": "response.completed", "response": {"service_tier": "default", "usage": COUNTED}},
            ],
            (),
            None,
        ),
        (
            R,
            [
                {
                    "type": "response.completed",
                    "response": {"service_tier": "flex", "usage": COUNTED, "output": SEARCHES},
                }
            ],
            ("flex",),
            2,
        ),
        (
            R,
            [{"type": "response.completed", "response": {"usage": COUNTED, "output": [{"type": "file_search_call"}]}}],
            ("file_search",),
            0,
        ),
        (
            C,
            [{"id": "c", "service_tier": "priority", "choices": [], "usage": {"prompt_tokens": 1}}],
            ("priority",),
            None,
        ),
        (G, [{"usageMetadata": {"promptTokenCount": 1, "trafficType": "ON_DEMAND"}}], (), None),
        (
            G,
            [
                {
                    "usageMetadata": {"promptTokenCount": 1, "serviceTier": "SERVICE_TIER_FLEX"},
                    "candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
                }
            ],
            ("flex",),
            2,
        ),
        (M, [{"usage": {**COUNTED, "service_tier": ["x"], "server_tool_use": {"web_search_requests": -1}}}], (), None),
    ],
)
def test_an_answer_says_how_it_was_served(
    wire: ModelWire, events: list[dict], said: tuple[str, ...], searches: int | None
) -> None:
    reader = UsageReader(wire, Memory(), is_stream=True)
    for event in events:
        reader.take(f"data: {json.dumps(event)}\n\n".encode())
    assert (reader.usage.terms, reader.usage.searches) == (said, searches)


@pytest.mark.parametrize(
    ("wire", "fields", "said", "searches"),
    [
        (M, {}, (), 0),
        (M, {"service_tier": "auto", "speed": "standard"}, (), 0),
        (M, {"speed": "fast", "inference_geo": "us", "tools": [{"type": "custom"}]}, ("fast", "us"), 0),
        (M, {"tools": [{"type": "web_search_20250305", "max_uses": 3}]}, (), 3),
        (R, {"service_tier": "priority", "tools": [{"type": "web_search"}]}, ("priority",), terms.USUAL_SEARCHES),
        (R, {"tools": "none", "service_tier": 5}, (), 0),
        (G, {"serviceTier": "flex", "tools": [{"google_search": {}}]}, ("flex",), terms.USUAL_SEARCHES),
    ],
)
def test_what_a_request_asks_for(wire: ModelWire, fields: dict, said: tuple[str, ...], searches: int) -> None:
    assert terms.asked_terms(wire, fields, "m") == said
    assert terms.asked_searches(wire, fields) == searches


DATA = "iVBORw0KGgo" + "A" * 400_000
LINK = "https://example.com/a"


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"type": "image", "source": {"type": "base64", "data": DATA}}, IMAGE_TOKENS),
        ({"type": "image", "source": {"type": "url", "url": LINK}}, IMAGE_TOKENS),
        ({"type": "document", "source": {"type": "url", "url": LINK}}, FILE_TOKENS),
        ({"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"}, IMAGE_TOKENS),
        ({"type": "input_image", "image_url": LINK}, IMAGE_TOKENS),
        ({"type": "input_image", "file_id": "f"}, IMAGE_TOKENS),
        ({"type": "input_file", "file_url": LINK}, FILE_TOKENS),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}, IMAGE_TOKENS),
        ({"type": "image_url", "image_url": {"url": LINK}}, IMAGE_TOKENS),
        ({"type": "file", "file": {"file_id": "f"}}, FILE_TOKENS),
        ({"inlineData": {"mimeType": "image/png", "data": DATA}}, IMAGE_TOKENS),
        ({"fileData": {"mimeType": "application/pdf", "fileUri": LINK}}, FILE_TOKENS),
        ({"type": "text", "text": DATA}, len(DATA) // 4),
        ({"type": "tool_use", "input": {"type": "image", "source": {"type": "base64", "data": DATA}}}, len(DATA) // 4),
        ({"functionCall": {"args": {"inlineData": {"mimeType": "image/png", "data": DATA}}}}, len(DATA) // 4),
        ({"inlineData": {"mimeType": "text/plain", "data": DATA}}, len(DATA) // 4),
        ({"type": "image", "source": {"type": "base64", "data": DATA[:800]}}, 200),
    ],
)
def test_what_a_model_reads_is_estimated_by_what_it_is(part: dict, tokens: int) -> None:
    """A text that begins like a picture is a text, and a link is not as short as it looks."""
    body = {"model": "m", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "Look."}]}]}
    estimate = input_tokens(json.dumps(body).encode(), body)
    assert tokens <= estimate <= tokens + 100


async def test_whatever_an_answer_says_is_a_report_and_an_event() -> None:
    """A report is written whole, or not at all: the runner reads no halves. And numbers and texts have bounds."""
    odd = ("\1" * 39 + "\ud800") * 10
    tools = tuple(f"{number}{odd}" for number in range(20))
    said = Usage(odd, odd, *[(1 << 40) - 1] * 6, odd, odd, odd, tools, 1 << 39)
    named: Any = Serving(provider(1, "p" * 63), cast("Any", None), Mask(()))
    attempt = Attempt(named, Route("POST", re.compile(".*"), M), "", "/", b"", "", asks_usage=False)
    fields: dict[str, Any] = usage_fields(attempt, 1.0, usage=said) | {"ask_id": "a" * 16}
    ModelUsage(**fields)
    reading, writing = os.pipe()
    try:
        await Reports(writing).usage(M, fields, 1 << 30)
        line = os.read(reading, 1 << 16)
    finally:
        os.close(reading)
        os.close(writing)
    assert len(line) <= select.PIPE_BUF
    assert json.loads(line)["usage"]["web_searches"] == 1_000_000
