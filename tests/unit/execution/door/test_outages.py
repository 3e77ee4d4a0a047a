"""Models that do not answer: how long they are waited for, when they are asked again, and what is told of it."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door import asking, outages
from services.execution.door.http import Answer
from services.execution.door.outages import START_PATIENCE_S, Outages, Trouble
from services.execution.door.retry_after import LONGEST_S, retry_after_s, retry_delay_s
from tests.kit.model_provider import ProviderServer, Reply, message, messages, providing
from tests.unit.execution.door.doors import HERE, serving

PATHS = {
    ModelWire.MESSAGES: "/v1/messages",
    ModelWire.RESPONSES: "/v1/responses",
    ModelWire.CHAT: "/v1/chat/completions",
    ModelWire.GEMINI: "/v1beta/models/m:generateContent",
}
AWAY = Trouble("away", "one", 502, is_unreached=True)
BUSY = Trouble("busy", "one", 529)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_FIRST_PAUSE_S", 0.02)


def provider(at: ProviderServer | int, name: str = "one", wire: ModelWire = ModelWire.MESSAGES) -> ModelProvider:
    port = at if isinstance(at, int) else at.port
    url = f"http://127.0.0.1:{port}"
    return ModelProvider(name=name, wire=wire, base_url=url, keys=(f"{name}-key",), allowed_addresses=HERE)


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
async def test_what_passes_soon_no_agent_notices(wire: ModelWire, status: int) -> None:
    async with (
        providing(Reply(status=status), message()) as at,
        serving(provider(at, wire=wire), patience_s=30) as door,
    ):
        answered, _ = await door.ask(PATHS[wire], {"model": "m"})
        assert (answered, len(at.asked)) == (200, 2)
        (used, note) = sorted(door.reports(), key=lambda report: "note" in report)
    assert note["note"].startswith(f"model provider one answers with status {status}; asked again in 0.0")
    assert used["usage"]["http_status"] == 200
    told, over = door.troubles
    assert (told["status"], told["is_over"], over) == (status, False, None)


async def test_retry_after_is_obeyed_in_full_by_all_requests_for_the_model() -> None:
    busy = Reply(status=429, headers={"retry-after": "1"})
    async with providing(busy, message()) as at, serving(provider(at), patience_s=30) as door:
        waiting = [asyncio.ensure_future(door.ask("/v1/messages", {"model": "a"}))]
        while not door.reports():
            await asyncio.sleep(0.005)
        told = time.monotonic()
        waiting += [asyncio.ensure_future(door.ask("/v1/messages", {"model": "a"})) for _ in range(2)]
        assert (await door.ask("/v1/messages", {"model": "b"}))[0] == 200, "another model has its own limit"
        assert [asked.json["model"] for asked in at.asked][:2] == ["a", "b"]
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        assert time.monotonic() - told > 0.9
        assert len(at.asked) == 5


async def test_who_wants_to_be_left_alone_for_too_long_is_not_waited_for() -> None:
    async with (
        providing(Reply(status=429, headers={"retry-after": "90"})) as at,
        serving(provider(at), patience_s=20) as door,
    ):
        assert [(await door.ask("/v1/messages", {"model": "a"}))[0] for _ in range(2)] == [429, 429]
        assert len(at.asked) == 1, "it is not even asked again"
        door.reports()
    assert [(one["is_over"], one["provider"]) for one in door.troubles] == [(True, "one")] * 2
    assert all(88 < one["pause_s"] < 92 for one in door.troubles)


@pytest.mark.parametrize(
    ("status", "why"), [(401, "does not know the key"), (402, "no credit"), (403, "may not"), (404, "no model m, or")]
)
async def test_what_is_refused_is_not_asked_again(status: int, why: str) -> None:
    async with providing(Reply([b"own words"], status)) as at, serving(provider(at), patience_s=30) as door:
        assert await door.ask("/v1/messages", {"model": "m"}) == (status, b"own words")
        assert len(at.asked) == 1
        door.reports()
    (told,) = door.troubles
    assert (told["is_refusal"], told["is_over"], why in told["text"]) == (True, True, True)


async def test_what_only_the_request_is_to_blame_for_is_no_trouble() -> None:
    async with providing(Reply([b"too long"], 400)) as at, serving(provider(at), patience_s=30) as door:
        assert await door.ask("/v1/messages", {"model": "m"}) == (400, b"too long")
        door.reports()
    assert door.troubles == []


async def test_nobody_waits_for_lists_and_counts() -> None:
    async with providing(Reply(status=529)) as at, serving(provider(at), patience_s=30) as door:
        assert (await door.ask("/v1/messages/count_tokens", {"model": "m"}))[0] == 529
        door.reports()
    assert door.troubles == []


async def test_an_agent_that_goes_away_while_it_waits_asks_nobody() -> None:
    async with providing(Reply(status=429, headers={"retry-after": "1"}), messages()) as at:
        async with serving(provider(at), patience_s=30) as door:
            asked = asyncio.ensure_future(door.ask("/v1/messages", {"model": "m"}))
            while not door.reports():
                await asyncio.sleep(0.005)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        assert len(at.asked) == 1


def test_an_outage_lasts_as_long_as_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known = Outages(120.0)
    waited = 0.0
    while (pause := known.pause(AWAY)) is not None:
        now, waited = now + pause, waited + pause
    assert waited == pytest.approx(START_PATIENCE_S), "who was never reached will hardly be"
    known.answered()
    waited = 0.0
    while (pause := known.pause(AWAY)) is not None:
        assert pause <= 8
        now, waited = now + pause, waited + pause
    assert waited == pytest.approx(120)
    assert known.pause(BUSY) is None, "the next request does not begin anew"
    now += 61
    assert known.pause(BUSY) is not None, "an outage of which nothing was seen for a while is another one"
    assert Outages(5.0).pause(BUSY) is not None
    assert Outages(0.0).pause(BUSY) is None


def in_s(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, None),
        ({"retry-after": "90"}, 90),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": f"Fri, 01 Jan {10**20} 00:00:00 GMT"}, None),
        ({"retry-after": f"Fri, 01 Jan 2027 00:00:00 +{10**20}"}, None),
        ({"retry-after": f"Fri, 01 Jan 2027 {10**20}:00:00 GMT"}, None),
        ({"retry-after": "99999999"}, LONGEST_S),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": lambda: format_datetime(in_s(3600), usegmt=True)}, 3600),
        ({"retry-after": lambda: format_datetime(in_s(-3600), usegmt=True)}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": lambda: f"{in_s(50).timestamp():.0f}"}, 50),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": lambda: in_s(70).isoformat(),
            },
            70,
        ),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": lambda: in_s(70).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
            },
            70,
        ),
    ],
)
def test_when_to_ask_again_is_read_from_every_field_that_says_so(fields: dict, seconds: float | None) -> None:
    said = {name: value() if callable(value) else value for name, value in fields.items()}
    answer = Answer(1, tuple((name.encode(), value.encode()) for name, value in said.items()), 429, b"")
    found = retry_after_s(answer)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=2 if seconds > 5 else 0.01))


def google_error(*delays: str, kind: str = "google.rpc.RetryInfo") -> dict:
    details = [{"@type": "type.googleapis.com/google.rpc.Help", "links": []}]
    details += [{"@type": f"type.googleapis.com/{kind}", "retryDelay": delay} for delay in delays]
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (google_error("34.074824224s"), 34.07),
        ([google_error("2s")], 2),
        (google_error("1s", "90s"), 90),
        (google_error("99999999s"), LONGEST_S),
        (google_error("-3s"), None),
        (google_error("soon"), None),
        (google_error("9s", kind="google.rpc.QuotaFailure"), None),
        ({"error": {"details": "google.rpc.RetryInfo"}}, None),
        ({"error": "google.rpc.RetryInfo"}, None),
        (["google.rpc.RetryInfo", None], None),
        ("google.rpc.RetryInfo", None),
    ],
)
def test_gemini_says_in_the_body_when_to_ask_again(body: object, seconds: float | None) -> None:
    found = retry_delay_s(json.dumps(body).encode())
    assert found == (None if seconds is None else pytest.approx(seconds, abs=0.01))
    assert retry_delay_s(json.dumps(body).encode()[:-1]) is None, "what is cut off is no JSON"


@pytest.mark.parametrize("length", [True, False])
async def test_a_body_is_obeyed_as_a_head_is_and_passed_back_whole(length: bool) -> None:
    body = json.dumps(google_error("50s"), indent=1).encode()
    busy = Reply([body[:40], body[40:]], 429, length=length)
    async with providing(busy) as at, serving(provider(at, wire=ModelWire.GEMINI), patience_s=20) as door:
        assert await door.ask(PATHS[ModelWire.GEMINI], {"contents": []}) == (429, body)
        assert (await door.ask(PATHS[ModelWire.GEMINI], {"contents": []}))[0] == 429
        assert len(at.asked) == 1, "it is left alone"
        door.reports()
    assert all(48 < one["pause_s"] < 52 for one in door.troubles)


async def test_a_provider_that_says_nothing_is_one_that_does_not_answer() -> None:
    """Whoever answers as a whole may say nothing for longer than whoever streams."""

    async def asked(wire: ModelWire, path: str, **body: object) -> list[int]:
        async with (
            providing(Reply(is_silent=True), message()) as at,
            serving(provider(at, wire=wire), patience_s=30, first_byte_s=0.2) as door,
        ):
            status, _ = await door.ask(path, {"model": "m", **body})
            used = [report["usage"] for report in door.reports() if "usage" in report]
            assert [(one["http_status"], one["is_partial"]) for one in used][:1] == [(0, True)], "it may be billed"
            return [status, len(at.asked), len(used)]

    began = time.monotonic()
    streams = [asked(wire, path, stream=True) for wire, path in PATHS.items() if wire is not ModelWire.GEMINI]
    streams.append(asked(ModelWire.GEMINI, PATHS[ModelWire.GEMINI].replace("generate", "streamGenerate")))
    whole = asyncio.ensure_future(asked(ModelWire.CHAT, PATHS[ModelWire.CHAT]))
    assert await asyncio.gather(*streams) == [[200, 2, 2]] * len(PATHS)
    assert await whole == [200, 2, 2]
    assert time.monotonic() - began >= 0.2 * asking._WHOLE_ANSWER


async def test_a_request_that_was_sent_and_not_answered_is_not_forgotten() -> None:
    """It may have been billed: of its use nothing is known."""
    silence = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        silence.set()
        writer.transport.abort()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server, serving(provider(server.sockets[0].getsockname()[1])) as door:
        assert (await door.ask("/v1/messages", {"model": "m"}))[0] == 502
        (report,) = door.reports()
    used = report["usage"]
    assert (used["is_partial"], used["provider"], used["http_status"]) == (True, "one", 0)
    assert silence.is_set()


async def test_a_connection_that_was_idle_is_not_trusted_with_what_is_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with providing(message()) as at, serving(provider(at)) as door:
        await door.ask("/v1/messages", {"model": "m"})
        await door.ask("/v1/messages", {"model": "m"})
        assert at.connections == 1
        monkeypatch.setattr(asking, "_FRESH_S", 0.0)
        await door.ask("/v1/messages/count_tokens", {"model": "m"})
        assert at.connections == 1
        await door.ask("/v1/messages", {"model": "m"})
        assert at.connections == 2


@pytest.mark.parametrize("hidden", ["fields=candidates", "%24fields=candidates", "fields=candidates&key=x&alt=json"])
async def test_no_agent_hides_what_gemini_used(hidden: str) -> None:
    async with providing(message()) as at, serving(provider(at, wire=ModelWire.GEMINI)) as door:
        fields = {"x_goog_fieldmask": "candidates"}
        await door.ask(f"{PATHS[ModelWire.GEMINI]}?{hidden}", {"contents": []}, **fields)
    (asked,) = at.asked
    assert "fields" not in asked.target
    assert "x-goog-fieldmask" not in asked.headers
    assert asked.target.endswith("alt=json") == hidden.endswith("alt=json")
