"""What the door lets in, passes on, and tells of it."""

import asyncio
import gzip
import json
from dataclasses import replace

import pytest

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door import server
from services.execution.door.memory import Memory
from services.execution.door.reservation import USUAL_OUTPUT, output_tokens
from services.execution.door.usage import UsageReader
from tests.kit.model_provider import ProviderServer, Reply, message, messages, providing, sse
from tests.unit.execution.door.doors import HERE, TOKEN, request, serving

KEY = "the-provider-s-key"
NOBODY = "http://127.0.0.1:1"
ASKED = {"model": "claude-sonnet-5-5", "max_tokens": 1, "messages": []}


def of(
    at: ProviderServer, wire: ModelWire = ModelWire.MESSAGES, name: str = "one", suffix: str = "", **own: object
) -> ModelProvider:
    fields = {"base_url": at.url + suffix, "keys": (KEY,), "allowed_addresses": HERE}
    return ModelProvider(name=name, wire=wire, **fields | own)


RESPONSE = {
    "id": "resp_1",
    "model": "gpt-6",
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
    },
}
CHUNK = {"id": "chatcmpl-1", "model": "gpt-6", "object": "chat.completion.chunk"}
CHAT_USAGE = {
    "prompt_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens": 9,
    "completion_tokens_details": {"reasoning_tokens": 4},
}
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "Hello."}]}}],
    "responseId": "g1",
    "modelVersion": "gemini-4-pro",
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 4,
    },
}
WIRES = {
    "messages": (ModelWire.MESSAGES, "", "/v1/messages?beta=true", "/v1/messages?beta=true", messages()),
    "responses": (
        *(ModelWire.RESPONSES, "/openai/v1", "/v1/responses", "/openai/v1/responses"),
        sse(
            [
                ("response.created", {"type": "response.created", "response": {**RESPONSE, "usage": None}}),
                ("response.output_text.delta", {"type": "response.output_text.delta", "delta": '"usage": {'}),
                ("response.completed", {"type": "response.completed", "response": RESPONSE}),
            ]
        ),
    ),
    "chat": (
        *(ModelWire.CHAT, "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        Reply([json.dumps({**CHUNK, "choices": [{}], "usage": CHAT_USAGE}).encode()], length=True),
    ),
    "gemini": (
        *(ModelWire.GEMINI, "", "/v1beta/models/gemini-4-pro:streamGenerateContent?alt=sse"),
        *("/v1beta/models/gemini-4-pro:streamGenerateContent?alt=sse", sse([("message", GEMINI)] * 2)),
    ),
}
CREDENTIALS = {
    ModelWire.MESSAGES: ("x-api-key", KEY),
    ModelWire.RESPONSES: ("authorization", f"Bearer {KEY}"),
    ModelWire.CHAT: ("authorization", f"Bearer {KEY}"),
    ModelWire.GEMINI: ("x-goog-api-key", KEY),
}


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("shown", ["x-api-key", "authorization", "x-goog-api-key"])
async def test_each_wire_passes_as_it_is_with_the_key_in_place_of_the_token(name: str, shown: str) -> None:
    wire, suffix, path, target, reply = WIRES[name]
    token = {"x_api_key": None} | {shown.replace("-", "_"): f"Bearer {TOKEN}" if shown == "authorization" else TOKEN}
    async with providing(reply) as at, serving(of(at, wire, suffix=suffix)) as door:
        body = {"model": "some", "future_field": [1]}
        status, answer = await door.ask(path, body, anthropic_beta="of-tomorrow", te="trailers", **token)
        usage = await door.usage()
    (asked,) = at.asked
    assert (status, answer) == (200, b"".join(reply.pieces))
    assert (asked.target, asked.json) == (target, body)
    field, value = CREDENTIALS[wire]
    assert asked.headers[field] == value
    assert asked.headers["anthropic-beta"] == "of-tomorrow"
    assert "te" not in asked.headers
    assert TOKEN not in str(asked)
    assert (usage["provider"], usage["http_status"], usage["is_partial"]) == ("one", 200, False)
    if wire is not ModelWire.MESSAGES:
        numbers = [usage[f"{name}_tokens"] for name in ("input", "cache_read", "output", "reasoning")]
        assert numbers == [40, 60, 9, 4]


async def test_a_key_in_the_query_is_taken_and_not_passed_on() -> None:
    path = "/v1beta/models/gemini-4-pro:generateContent"
    async with providing(WIRES["gemini"][-1]) as at, serving(of(at, ModelWire.GEMINI)) as door:
        status, _ = await door.ask(f"{path}?alt=sse&key={TOKEN}", {}, x_api_key=None)
    assert (status, at.asked[0].target) == (200, f"{path}?alt=sse")


@pytest.mark.parametrize("shown", ["", "x", TOKEN[:-1], f"{TOKEN}x", KEY])
async def test_only_the_executions_token_is_let_in(shown: str) -> None:
    async with providing(messages()) as at, serving(of(at)) as door:
        status, answer = await door.ask("/v1/messages", ASKED, x_api_key=shown)
        assert json.loads(answer)["error"]["type"] == "authentication_error"
    assert (status, at.asked) == (401, [])


REFUSED = [
    *(("GET", path) for path in ("/v1/files", "/v1/messages", "/v1/messages/batches", "/v1/responses/resp_1")),
    *(("GET", path) for path in ("/v1/models/../files", "/v1/models/a/..", "/v1beta/models/..:x", "/metrics")),
    *(("POST", path) for path in ("/v1/messages/", "/v1/messages/../files", "//v1/messages", "/v1/models", "/v1/m%65")),
    *(("GET", f"/{version}/models/veo-3/operations{rest}") for version in ("v1", "v1beta") for rest in ("", "/o-1")),
    ("POST", "/v1beta/models/veo-3/operations/o-1:generateContent"),
    ("DELETE", "/v1/messages"),
    ("POST", "/v1beta/models/../files:generateContent"),
]


@pytest.mark.parametrize(("method", "path"), REFUSED)
async def test_nothing_else_is_passed_on(method: str, path: str) -> None:
    async with providing(messages()) as at, serving(of(at)) as door:
        status, answer = await door.ask(path, method=method, anthropic_version="2023-06-01")
        assert json.loads(answer)["error"]
    assert (status, at.asked) == (404, [])


async def test_errors_have_the_form_of_their_wire() -> None:
    async with serving() as door:
        answers = [
            await door.ask("/v1/messages", ASKED),
            await door.ask("/v1/responses", {}, x_api_key=None, authorization=f"Bearer {TOKEN}"),
            await door.ask("/v1beta/models/m:generateContent", {}),
        ]
    anthropic, openai, gemini = (json.loads(answer)["error"] for _, answer in answers)
    assert [status for status, _ in answers] == [404, 404, 404]
    assert anthropic == {"type": "not_found_error", "message": anthropic["message"]}
    assert "wire messages" in anthropic["message"]
    assert openai.keys() == {"message", "type", "param", "code"}
    assert (gemini["code"], gemini["status"]) == (404, "NOT_FOUND")


async def test_greetings_are_answered_and_websockets_are_not() -> None:
    async with providing(messages()) as at, serving(of(at, ModelWire.RESPONSES)) as door:
        assert await door.ask("/api/hello", method="HEAD", x_api_key=None) == (200, b"")
        status, _ = await door.ask("/v1/responses", method="GET", upgrade="websocket")
    assert (status, at.asked) == (426, [])


async def test_what_has_no_price_is_passed_on_and_not_reported() -> None:
    counted = Reply([b'{"input_tokens": 5}'], length=True)
    async with providing(counted) as at, serving(of(at)) as door:
        assert await door.ask("/v1/messages/count_tokens", ASKED) == (200, b'{"input_tokens": 5}')
        assert (await door.ask("/v1/models/claude-1", method="GET", anthropic_version="1"))[0] == 200
        assert (await door.ask("/v1/messages", ASKED))[0] == 200
        assert (await door.usage())["is_partial"]
        assert door.reports() == []
    assert [asked.target for asked in at.asked] == ["/v1/messages/count_tokens", "/v1/models/claude-1", "/v1/messages"]


@pytest.mark.parametrize("cut", range(1, 8))
async def test_an_answer_that_breaks_off_is_reported_with_what_was_known(cut: int) -> None:
    reply = messages("Hi")
    reply.cut = cut
    async with providing(reply) as at, serving(of(at)) as door:
        _, answer = await door.ask("/v1/messages", ASKED)
        usage = await door.usage()
    assert answer == b"".join(reply.pieces[:cut])
    assert usage["is_partial"] == (cut < 7), "by then it has said all that it used"
    assert (usage["request_id"], usage["input_tokens"]) == ("msg_1", 11)
    assert usage["output_tokens"] == (1 if cut < 7 else 42)


async def test_a_request_whose_agent_goes_away_is_ended_and_reported() -> None:
    reply = messages()
    reply.gate = asyncio.Event()
    async with providing(reply) as at, serving(of(at)) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(f"POST /v1/messages HTTP/1.1\r\nx-api-key: {TOKEN}\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        await reader.readuntil(b"message_start")
        writer.close()
        usage = await door.usage()
        async with asyncio.timeout(20):
            await at.lost.wait()
    assert (usage["is_partial"], usage["input_tokens"]) == (True, 11)


@pytest.mark.parametrize("status", [500, 503, 529])
async def test_another_provider_of_the_wire_is_asked_when_one_fails(status: int) -> None:
    async with providing(Reply(status=status)) as bad, providing(messages()) as good:
        gone = ModelProvider(name="gone", wire=ModelWire.MESSAGES, base_url=NOBODY, allowed_addresses=HERE)
        other = of(good, ModelWire.GEMINI, name="other")
        async with serving(gone, of(bad, name="bad"), other, of(good, name="good")) as door:
            assert (await door.ask("/v1/messages", ASKED))[0] == 200
            first, second, last = door.reports()
    assert first["note"].startswith("model provider gone does not answer: ")
    assert second["note"] == f"model provider bad answers with status {status}; good is asked instead"
    assert last["usage"]["provider"] == "good"


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_the_last_providers_answer_is_the_agents(status: int) -> None:
    async with providing(Reply([b"why"], status, headers={"retry-after": "7"})) as at, serving(of(at)) as door:
        assert await door.ask("/v1/messages", ASKED) == (status, b"why")
        assert door.reports() == []


async def test_nobody_answers() -> None:
    gone = ModelProvider(name="gone", wire=ModelWire.MESSAGES, base_url=NOBODY, allowed_addresses=HERE)
    async with serving(gone) as door:
        status, answer = await door.ask("/v1/messages", ASKED)
    assert status == 502
    assert json.loads(answer)["error"]["message"].startswith("Boatyard: model provider gone does not answer: ")


async def test_a_refused_key_is_followed_by_the_next() -> None:
    async with providing(Reply(status=401), messages()) as at, serving(of(at, keys=("first", "second"))) as door:
        assert (await door.ask("/v1/messages", ASKED))[0] == 200
        assert "its next key" in door.reports()[0]["note"]
    assert [asked.headers["x-api-key"] for asked in at.asked] == ["first", "second"]


@pytest.mark.parametrize("how", ["answers 500", "answers nothing", "may not be asked"])
async def test_another_key_makes_no_difference_to_a_provider_that_fails(how: str) -> None:
    async with providing(Reply(status=500)) as at, providing(messages()) as other:
        one = of(at, keys=("first", "second"))
        one = {
            "answers 500": one,
            "answers nothing": replace(one, base_url=NOBODY),
            "may not be asked": replace(one, allowed_addresses=()),
        }[how]
        async with serving(one, of(other, name="two", keys=("third", "fourth"))) as door:
            assert (await door.ask("/v1/messages", ASKED))[0] == 200
            (note,) = (report["note"] for report in door.reports() if "note" in report)
    assert note.endswith("; two is asked instead")
    assert len(at.asked) == (how == "answers 500")
    assert [asked.headers["x-api-key"] for asked in other.asked] == ["third"]


async def test_a_report_is_whole_whatever_an_answer_says() -> None:
    for text in ("\U0001f600" * 999, "\ud800" * 999, "\0" * 999, '"' * 999):
        async with providing(message(message_id=text, model=text)) as at, serving(of(at)) as door:
            await door.ask("/v1/messages", ASKED)
            usage = await door.usage()
        assert [len(usage[name]) for name in ("request_id", "model")] == [200, 200]
        assert usage["input_tokens"] == 11


async def test_what_comes_between_two_answers_is_no_answer() -> None:
    """Some servers say 408 before they close a connection that was not used for a while."""
    async with providing(message()) as at, serving(of(at)) as door:
        at.says_between = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        assert (await door.ask("/v1/messages", ASKED))[0] == 200
        async with asyncio.timeout(20):
            await at.said_between.wait()
        assert (await door.ask("/v1/messages", ASKED))[0] == 200


async def test_connections_that_show_no_token_give_way_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_CLIENTS", 2)
    async with providing(message()) as at, serving(of(at)) as door:
        known = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
        for reader, writer in known:
            writer.write(request("/v1/messages", ASKED, connection="keep-alive"))
            assert b" 200 " in await reader.readline()
        strangers = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(9)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(reader.read() for reader, _ in strangers[:-2]), return_exceptions=True)
        assert (await door.ask("/v1/messages", ASKED))[0] == 503, "two have a place already"
        known.pop()[1].close()
        async with asyncio.timeout(20):
            while (await door.ask("/v1/messages", ASKED))[0] != 200:
                await asyncio.sleep(0.01)
        assert not known[0][0].at_eof()
        for _, writer in (*known, *strangers):
            writer.close()


async def test_models_choose_providers_and_have_aliases() -> None:
    async with providing(messages()) as one, providing(messages()) as two:
        aliases = {"fast": "claude-haiku-6"}
        providers = (of(one, models=("claude-opus-6",)), of(two, models=("claude-haiku-6",), aliases=aliases))
        async with serving(*providers) as door:
            for model in ("claude-opus-6", "claude-haiku-6", "fast"):
                assert (await door.ask("/v1/messages", {**ASKED, "model": model}))[0] == 200
            status, answer = await door.ask("/v1/messages", {**ASKED, "model": "gpt-6"})
    assert [asked.json["model"] for asked in one.asked] == ["claude-opus-6"]
    assert [asked.json["model"] for asked in two.asked] == ["claude-haiku-6", "claude-haiku-6"]
    assert status == 404
    assert b"has the model gpt-6" in answer


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b'{"model": "gpt-6"}'),
        b'{"model": "gpt-6", "metadata": %b}' % (b"[" * 200 + b"]" * 200),
        b'[{"model": "gpt-6"}]',
        b'{"model": "gpt-6"} and more',
    ],
    ids=["compressed", "deep", "a list", "two values"],
)
async def test_what_cannot_be_read_gets_past_no_list_of_models(body: bytes) -> None:
    head = (
        f"POST /v1/messages HTTP/1.1\r\nx-api-key: {TOKEN}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    async with providing(messages()) as at, serving(of(at, models=("claude-opus-6",))) as door:
        answer = await door.talk(head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must be an object of JSON, without compression" in answer
    assert not at.asked


HALF = {"usage": CHAT_USAGE, "choices": [{"delta": {"content": "Hi"}, "finish_reason": None}]}
ENDED = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
COUNTED = {"totalTokenCount": 9, "promptTokenCount": 4, "candidatesTokenCount": 5}


@pytest.mark.parametrize(
    ("wire", "event", "is_whole"),
    [
        (ModelWire.MESSAGES, {"message": {"usage": {"input_tokens": 1, "output_tokens": 1}}}, False),
        (ModelWire.MESSAGES, {"type": "message_delta", "usage": {"output_tokens": 42}}, True),
        (ModelWire.RESPONSES, {"type": "response.created", "response": {"usage": None}}, False),
        (ModelWire.RESPONSES, {"type": "response.completed", "response": RESPONSE}, True),
        (ModelWire.CHAT, HALF, False),
        (ModelWire.CHAT, {**HALF, **ENDED}, True),
        (ModelWire.CHAT, {**HALF, "choices": []}, True),
        (ModelWire.CHAT, {**ENDED, "usage": None}, False),
        (ModelWire.GEMINI, {"candidates": [{}], "usageMetadata": COUNTED}, False),
        (ModelWire.GEMINI, {"usageMetadata": COUNTED}, False),
        (ModelWire.GEMINI, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": COUNTED}, True),
    ],
)
def test_an_answer_is_whole_when_it_has_said_all_that_it_used(wire: ModelWire, event: dict, is_whole: bool) -> None:
    """Some clients hang up at the last event; others would hang up before it, so that less is counted."""
    reader = UsageReader(wire, Memory(), is_stream=True)
    reader.take(f"data: {json.dumps(event)}\n\n".encode())
    assert reader.is_whole == is_whole


@pytest.mark.parametrize(
    ("wire", "fields", "most"),
    [
        (ModelWire.MESSAGES, {"max_tokens": 7}, 7),
        (ModelWire.MESSAGES, {}, USUAL_OUTPUT),
        (ModelWire.RESPONSES, {"max_output_tokens": "many"}, USUAL_OUTPUT),
        (ModelWire.CHAT, {"max_completion_tokens": 1, "max_tokens": 90_000, "n": 3}, 270_000),
        (ModelWire.GEMINI, {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}}, 9),
        (
            ModelWire.GEMINI,
            {"generationConfig": {"maxOutputTokens": 1}, "generation_config": {"maxOutputTokens": 9}},
            9,
        ),
        (ModelWire.GEMINI, {"generationConfig": 5}, USUAL_OUTPUT),
    ],
)
def test_of_several_bounds_the_largest_is_what_a_request_may_write(wire: ModelWire, fields: dict, most: int) -> None:
    assert output_tokens(wire, fields) == most


async def test_an_alias_of_gemini_is_in_the_path() -> None:
    async with providing(sse([])) as at, serving(of(at, ModelWire.GEMINI, aliases={"fast": "gemini-4-flash"})) as door:
        await door.ask("/v1beta/models/fast:generateContent", {})
    assert at.asked[0].target == "/v1beta/models/gemini-4-flash:generateContent"


@pytest.mark.parametrize("asks", [False, True])
async def test_a_chat_is_metered_whether_or_not_its_agent_asks_for_the_usage(asks: bool) -> None:
    events = [{**CHUNK, "choices": [{"delta": {"content": "Hi"}}]}, {**CHUNK, "choices": [], "usage": CHAT_USAGE}]
    pieces = [*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n"]
    body = {"model": "m", "stream": True} | ({"stream_options": {"include_usage": True}} if asks else {})
    async with (
        providing(Reply(pieces, type="text/event-stream")) as at,
        serving(of(at, ModelWire.CHAT, suffix="/v1")) as door,
    ):
        _, answer = await door.ask("/v1/chat/completions", body)
        assert (await door.usage())["output_tokens"] == 9
    assert at.asked[0].json["stream_options"] == {"include_usage": True}
    assert answer == b"".join(pieces if asks else [pieces[0], pieces[2]])


async def test_the_provider_says_who_pays() -> None:
    async with providing(message()) as at, serving(of(at, ModelWire.CHAT, project_header="proj_1")) as door:
        await door.ask("/v1/chat/completions", {}, openai_project="proj_2", openai_organization="org_2")
    assert at.asked[0].headers["openai-project"] == "proj_1"
    assert "openai-organization" not in at.asked[0].headers


async def test_connections_are_used_again_at_both_ends() -> None:
    one = f"POST /v1/messages HTTP/1.1\r\nx-api-key: {TOKEN}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    async with providing(message()) as at, serving(of(at)) as door:
        answer = await door.talk(one * 2 + one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert (len(at.asked), at.connections) == (3, 1)


async def test_a_connection_that_the_provider_closed_meanwhile_is_no_failure() -> None:
    async with providing(message()) as at, serving(of(at)) as door:
        at.closes = True
        for _ in range(3):
            assert (await door.ask("/v1/messages", ASKED))[0] == 200
        assert [report["usage"]["is_partial"] for report in door.reports()] == [False] * 3
    assert (len(at.asked), at.connections) == (3, 3)


@pytest.mark.parametrize("name", ["id", "model"])
@pytest.mark.parametrize("text", ["\ud800", "\0\x01" * 100, "\U0001f600" * 200, "\u00ff" * 500, "x" * 10_000])
async def test_whatever_a_provider_says_of_an_answer_can_be_recorded(name: str, text: str) -> None:
    said = {
        "id": "\U0001f600" * 200,
        "model": "\x01" * 200,
        "usage": {"input_tokens": 1, "output_tokens": 2},
        name: text,
    }
    reply = Reply([json.dumps(said).encode()], length=True)
    async with providing(reply) as at, serving(of(at)) as door:
        await door.ask("/v1/messages", ASKED)
        usage = await door.usage()
    assert usage["output_tokens"] == 2
    assert all(len(usage[key].encode()) <= 800 for key in ("request_id", "model"))


async def test_a_request_of_too_many_values_is_not_read() -> None:
    sent = {**ASKED, "messages": [[]] * (1 << 20)}
    async with providing(messages()) as at, serving(of(at, aliases={"a": "b"})) as door:
        status, _ = await door.ask("/v1/messages", sent)
    assert (status, at.asked) == (413, [])
