"""Each wire through a storm of faults: an agent that asks again gets its answer, and each answer is counted once."""

import json

import pytest

from services.agent.providers import ModelWire
from services.execution.door import outages
from tests.kit.model_provider import Reply, messages, providing, sse
from tests.unit.execution.door.doors import Served, serving
from tests.unit.execution.door.test_outages import PATHS, provider

USED = (7, 5)


def openai(usage: dict) -> dict:
    return {"id": "resp_1", "model": "m", "usage": usage}


ANSWERS = {
    ModelWire.MESSAGES: messages("Hi", model="m"),
    ModelWire.RESPONSES: sse(
        [
            ("response.created", {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}),
            ("response.output_text.delta", {"type": "response.output_text.delta", "delta": "Hi"}),
            (
                "response.completed",
                {"type": "response.completed", "response": openai({"input_tokens": USED[0], "output_tokens": USED[1]})},
            ),
        ]
    ),
    ModelWire.CHAT: sse(
        [
            ("", {"id": "chat_1", "model": "m", "choices": [{"delta": {"content": "Hi"}}]}),
            ("", {"id": "chat_1", "model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}),
        ]
    ),
    ModelWire.GEMINI: sse(
        [
            ("", {"responseId": "r_1", "candidates": [{}]}),
            ("", {"responseId": "r_1", "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5}}),
        ]
    ),
}
REFUSED = [
    Reply(status=429, headers={"retry-after": "0"}),
    Reply(status=529),
    Reply(status=500),
    Reply(status=503, headers={"retry-after-ms": "20"}),
    Reply(status=408),
]


async def asked(door: Served, wire: ModelWire) -> int:
    """Ask once as an agent does, and return the status; 0 when the connection broke before one came."""
    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    return (await door.ask(PATHS[wire], body))[0]


@pytest.mark.parametrize("wire", ANSWERS)
async def test_each_answer_is_counted_once(wire: ModelWire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outages, "_SPREAD_S", 0.01)
    whole = ANSWERS[wire]
    broken = [Reply(whole.pieces, type=whole.type, cut=number) for number in range(len(whole.pieces))]
    storm = [reply for one in broken for reply in (*REFUSED, one)]
    async with providing(*storm, *REFUSED, whole) as at, serving(provider(at, wire=wire), patience_s=60) as door:
        for _ in broken:
            assert await asked(door, wire) == 200, "what had begun is passed on, however it ends"
        assert await asked(door, wire) == 200
        used = [report["usage"] for report in door.reports() if "usage" in report]
    assert len(at.asked) == len(storm) + len(REFUSED) + 1
    assert [one["is_partial"] for one in used][-1] is False
    assert len(used) == len(broken) + 1, "each answer that had begun is counted, and no refusal"
    assert all(one["http_status"] == 200 for one in used)
    assert door.troubles[-1] is None
    assert not any(trouble["is_over"] for trouble in door.troubles if trouble is not None)
    assert json.loads(at.asked[-1].body)["model"] == "m"
