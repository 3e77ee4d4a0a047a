"""No answer has the key that it was asked with."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door.mask import Mask, MaskedBody
from tests.kit.model_provider import Reply, providing
from tests.unit.execution.door.doors import HERE, serving

KEY = 'sk-proj/a+key/of-"this"-provider=='
OTHER = "another-key-of-this-provider"
SAID = {
    "as it is": KEY,
    "the next one": OTHER,
    "as JSON": json.dumps(KEY),
    "as a URL": quote(KEY),
    "as base64": base64.b64encode(KEY.encode()).decode(),
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_what_a_provider_says_of_its_key_is_masked(said: str, status: int, kind: str) -> None:
    body = f'{{"you showed": {said}}}'.encode()
    reply = Reply([body[:20], body[20:]], status, kind, {"x-shown": said})
    async with providing(reply) as at:
        provider = ModelProvider(
            name="one", wire=ModelWire.CHAT, base_url=at.url, keys=(KEY, OTHER), allowed_addresses=HERE
        )
        async with serving(provider) as door:
            status_line = b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer the-execution-s-token\r\n"
            answer = await door.talk(status_line + b'connection: close\r\ncontent-length: 15\r\n\r\n{"stream":true}')
    assert answer.count(b"*" * 16) >= 2
    assert not any(needle in answer for needle in Mask((KEY, OTHER)).needles)


@given(st.lists(st.sampled_from([KEY, KEY[:-3], KEY[:5], OTHER, OTHER[:9], "s", "an", "\n\n", "*"])), st.data())
def test_pieces_are_masked_as_the_whole_is(parts: list[str], data: st.DataObject) -> None:
    mask, whole = Mask((KEY, OTHER)), "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    body = MaskedBody(mask)
    passed = [body.take(whole[start:end]) for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    answer = b"".join((*passed, body.rest()))
    assert answer == mask.masked(whole)
    assert len(answer) == len(whole)


def test_nothing_else_waits() -> None:
    body = MaskedBody(Mask((KEY, "ollama", "")))
    for piece in (b"event: ollama\n\n", b"data: sk-proj\n\n", b"\0" * 100_000):
        assert body.take(piece) == piece
