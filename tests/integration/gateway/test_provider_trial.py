"""Trials of providers: what is asked, where, and what people are told of the answer."""

import json
from typing import Any

import pytest

from services.agent.providers import ModelProvider, ModelWire
from services.gateway.catalog.provider_trial import try_provider
from services.lifecycle.webhooks import AllowList
from tests.kit.model_provider import Reply, providing

KEYS = ("sk-first-key", "sk-second-key")
LOOPBACK = AllowList.parse("127.0.0.1", "BOATYARD_PROVIDER_ALLOW")
MODELS = json.dumps({"data": [{"id": "a"}, {"id": "b"}]}).encode()


def provider(url: str, wire: ModelWire = ModelWire.CHAT, **fields: Any) -> ModelProvider:
    return ModelProvider(name="tried", wire=wire, base_url=url, **{"keys": KEYS, **fields})


@pytest.mark.parametrize(
    ("wire", "prefix", "path", "header", "value"),
    [
        (ModelWire.MESSAGES, "", "/v1/models", "x-api-key", "KEY"),
        (ModelWire.MESSAGES, "/a/v1/", "/a/v1/models", "x-api-key", "KEY"),
        (ModelWire.RESPONSES, "/v1", "/v1/models", "authorization", "Bearer KEY"),
        (ModelWire.CHAT, "", "/v1/models", "authorization", "Bearer KEY"),
        (ModelWire.CHAT, "/api/v3", "/api/v3/models", "authorization", "Bearer KEY"),
        (ModelWire.GEMINI, "", "/v1beta/models", "x-goog-api-key", "KEY"),
    ],
)
async def test_each_wire_is_asked_for_its_models_with_each_key(
    wire: ModelWire, prefix: str, path: str, header: str, value: str
) -> None:
    async with providing(Reply([MODELS])) as at:
        trial = await try_provider(provider(at.url + prefix, wire), LOOPBACK)
    assert trial.succeeded, trial.message
    assert trial.message.startswith("answered 200 to each of its 2 keys in ")
    assert trial.message.endswith(", and lists 2 models")
    shown = [(asked.method, asked.target, asked.headers[header]) for asked in at.asked]
    assert shown == [("GET", path, value.replace("KEY", key)) for key in KEYS]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply([json.dumps({"error": {"message": f"bad {KEYS[0]}\x1b[31m"}}).encode()], status=401),
            "key 1 of 2: answered 401: bad [redacted:tried]",
        ),
        (Reply([b"<html>"], status=502), "key 1 of 2: answered 502: <html>"),
        (Reply([], status=302, headers={"location": "http://127.0.0.2/"}), "key 1 of 2: answered 302"),
        (Reply([b"[" * 200_000], status=400), "key 1 of 2: answered 400: [["),
    ],
)
async def test_a_refusal_is_told_in_one_line_without_the_key(reply: Reply, message: str) -> None:
    async with providing(reply) as at:
        trial = await try_provider(provider(at.url), LOOPBACK)
    assert not trial.succeeded
    assert trial.message.startswith(message)
    assert len(trial.message) < 400
    assert not [character for character in trial.message if not character.isprintable()]
    assert len(at.asked) == 1


async def test_a_page_that_is_no_api_is_said_so() -> None:
    async with providing(Reply([b"<html>Welcome"])) as at:
        trial = await try_provider(provider(at.url, keys=()), LOOPBACK)
    assert trial.message.endswith("and no JSON: is this the provider's API?")
    assert "authorization" not in at.asked[0].headers


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "https://localhost:1"])
async def test_no_other_address_is_called(url: str) -> None:
    trial = await try_provider(provider(url), AllowList.parse("192.0.2.1", "BOATYARD_PROVIDER_ALLOW"))
    assert not trial.succeeded
    assert "BOATYARD_PROVIDER_ALLOW" in trial.message


async def test_where_nobody_listens_is_told() -> None:
    trial = await try_provider(provider("http://127.0.0.1:1"), LOOPBACK)
    assert (trial.succeeded, trial.message.startswith("key 1 of 2: no connection: ")) == (False, True)
