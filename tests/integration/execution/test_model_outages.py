"""Agents whose models do not answer: ended in time, with the cause, and with when to ask again."""

import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from boatyard.agent.v1 import model_pb2, sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.ids import new_id
from tests.integration.execution.service import Client, Seen, State, running
from tests.kit.model_provider import Reply, messages, providing

PRESET = """
title = "Stubborn"
licence = "MIT"
install = "make stubborn"
program = "stubborn"
line = 'cat >/dev/null; exec "$BOATYARD_AGENT_PROGRAM"'
"""
ASK = 'curl -sS -m 60 -H x-api-key:$ANTHROPIC_API_KEY -d \'{"model": "m"}\' $ANTHROPIC_BASE_URL/v1/messages'
STUBBORN = f"#!/bin/sh\nwhile :; do {ASK}; sleep 0.1; done\n"
PATIENCE_S = 2.0


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    directory = tmp_path_factory.mktemp("outages")
    directory.chmod(0o755)
    for name, text in {"tools/stubborn": STUBBORN, "presets/stubborn.toml": PRESET}.items():
        path = directory / name
        path.parent.mkdir(mode=0o755)
        path.write_text(text)
        path.chmod(0o755)
    settings = {"AGENT_PATHS": str(directory / "tools"), "PRESETS": str(directory / "presets")}
    async with running(directory, MODEL_PATIENCE_SECONDS=str(PATIENCE_S), **settings) as client:
        yield client


async def run(client: Client, agent: str, url: str) -> Seen:
    """Run an agent whose provider is at a URL: a preset or an engine by its name, or a line."""
    own = {"name": "one", "wire": model_pb2.MODEL_WIRE_MESSAGES, "base_url": url, "keys": ["a-key-of-a-provider"]}
    providers = [model_pb2.ModelProvider(**own, allowed_addresses=["127.0.0.1/32"])]
    spec = client.service.spec("", prompt="Do it.", network=sandbox_pb2.NETWORK_NONE, providers=providers)
    if agent == "anthropic":
        spec.agent.anthropic.SetInParent()
        spec.agent.model = "m"
    elif agent == "stubborn":
        spec.agent.command.preset = agent
    else:
        spec.agent.command.line = agent
    name = new_id("outage")
    await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
    seen = await client.watch(name)
    seen.check_whole()
    assert seen.end.processes_left == 0
    return seen


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("agent", ["stubborn", f"{ASK} --fail", pytest.param("anthropic", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:{port}", "Connect call failed"),
        pytest.param("https://127.0.0.1:{served}", "it closes connections", marks=pytest.mark.slow),
        pytest.param("https://no-such-host.invalid", "Temporary failure|not known|No address", marks=pytest.mark.slow),
    ],
)
async def test_a_model_that_nobody_reaches_is_told_soon(client: Client, agent: str, url: str, cause: str) -> None:
    async with providing(messages()) as at:
        end = (await run(client, agent, url.format(port=free_port(), served=at.port))).end
    assert (end.state, end.reason) == (State.STATE_FAILED, "MODEL_UNAVAILABLE"), end.message
    assert any(word in end.message for word in cause.split("|")), end.message
    assert "model provider one does not answer" in end.message
    assert (end.model_outage.provider, end.model_outage.HasField("retry_time")) == ("one", False)


@pytest.mark.parametrize("agent", ["stubborn", pytest.param("anthropic", marks=pytest.mark.slow)])
async def test_a_provider_that_wants_to_be_left_alone_is_and_its_agent_ends(client: Client, agent: str) -> None:
    began = time.time()
    async with providing(Reply(status=429, headers={"retry-after": "900"})) as at:
        end = (await run(client, agent, at.url)).end
        assert len(at.asked) == 1
    assert end.reason == "MODEL_UNAVAILABLE"
    assert end.model_outage.provider == "one"
    assert 890 < end.model_outage.retry_time.ToSeconds() - began < 930


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["stubborn", f"{ASK} --fail", "anthropic"])
@pytest.mark.parametrize(("status", "cause"), [(401, "does not know the key"), (404, "no model m")])
async def test_what_would_be_refused_again_is_another_reason(
    client: Client, agent: str, status: int, cause: str
) -> None:
    async with providing(Reply(status=status)) as at:
        end = (await run(client, agent, at.url)).end
    assert (end.reason, cause in end.message) == ("MODEL_FAILED", True), end.message
    assert not end.HasField("model_outage")


async def test_an_outage_that_passes_ends_nobody(client: Client) -> None:
    async with providing(Reply(status=503), Reply(status=529), messages()) as at:
        seen = await run(client, f"{ASK} --fail", at.url)
        assert (seen.end.state, len(at.asked)) == (State.STATE_SUCCEEDED, 3), seen.end.message
    assert b"message_stop" in seen.output


async def test_who_asks_no_model_or_can_do_without_is_left_alone(client: Client) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert (await run(client, "sleep 0.1; exit 3", url)).end.reason == "AGENT_FAILED"
    assert (await run(client, f"{ASK} --fail || echo without", url)).end.state == State.STATE_SUCCEEDED
