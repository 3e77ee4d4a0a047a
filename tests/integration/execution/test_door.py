"""Agents that reach their models through the door, with no network and no key, against a provider of the tests."""

import asyncio
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1 import model_pb2, sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.providers import ModelProvider, ModelWire
from services.common.ids import new_id
from services.execution.credentials import Credentials
from services.execution.model import Bounds, Plan
from services.execution.rundir.directory import RunDirectory
from services.sandbox.spec import SandboxSpec, Tier
from tests.integration.execution.model import of
from tests.integration.execution.service import Client, Seen, State, running
from tests.integration.execution.test_survival import runner_of
from tests.kit import processes
from tests.kit.model_provider import ProviderServer, Reply, messages, providing
from tests.kit.uids import AS_SOMEBODY

KEY = f"sk-ant-sworn-to-secrecy-{secrets.token_hex(8)}"
SDK = """
import anthropic, os
with anthropic.Anthropic().messages.stream(model="claude-sonnet-5-5", max_tokens=100,
        messages=[{"role": "user", "content": "Hi."}], extra_body={"future_field": {"deep": [1]}},
        extra_headers={"anthropic-beta": "of-tomorrow"}) as stream:
    print("".join(stream.text_stream), stream.get_final_message().usage.output_tokens)
print(sorted(name for name, value in os.environ.items() if value == os.environ["BOATYARD_DOOR_TOKEN"]))
"""


def provider(at: ProviderServer, wire: str = "MESSAGES", name: str = "anthropic", **fields: object) -> dict:
    """Return the specification's field for one provider."""
    number = model_pb2.ModelWire.Value(f"MODEL_WIRE_{wire}")
    own = {
        "name": name,
        "wire": number,
        "base_url": at.url,
        "keys": [KEY],
        "allowed_addresses": ["127.0.0.1/32"],
        **fields,
    }
    return {"providers": [model_pb2.ModelProvider(**own)]}


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with running(tmp_path_factory.mktemp("door")) as client:
        yield client


async def run(client: Client, line: str | list[str], **fields: object) -> Seen:
    name = new_id("door")
    await client.start(name, line, **{"network": sandbox_pb2.NETWORK_NONE, **fields})
    seen = await client.watch(name)
    seen.check_whole()
    assert seen.end.processes_left == 0
    return seen


@pytest.mark.slow
async def test_the_real_sdk_reaches_a_model_without_network_or_key(client: Client) -> None:
    async with providing(messages()) as at:
        seen = await run(client, [sys.executable, "-c", SDK], **provider(at))
    assert seen.output.decode().startswith("Hello. 42\n"), (seen.output, seen.end.message)
    assert b"'ANTHROPIC_API_KEY', 'BOATYARD_DOOR_TOKEN'" in seen.output
    (asked,) = at.asked
    assert asked.headers["x-api-key"] == KEY
    assert asked.headers["anthropic-beta"] == "of-tomorrow"
    assert asked.json["future_field"] == {"deep": [1]}
    (usage,) = of(seen, "usage")
    assert (usage.request_id, usage.model, usage.provider) == ("msg_1", "claude-sonnet-5-5", "anthropic")
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (11, 42, 300)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens, usage.is_partial) == (50, 30, False)
    assert usage.http_status == 200
    assert usage.latency_seconds > 0
    assert usage.cost_usd > 0
    assert seen.end.state == State.STATE_SUCCEEDED
    assert seen.end.model_use.cost_usd == usage.cost_usd
    assert (seen.end.model_use.turns, seen.end.model_use.tokens) == (1, 403)


CALL = "curl -sS --max-time 60 -H x-api-key:$ANTHROPIC_API_KEY -d '{}' $ANTHROPIC_BASE_URL/v1/messages"


async def test_a_client_that_asks_again_after_a_broken_stream_is_billed_twice(client: Client) -> None:
    """So both are counted: the answer that broke off with what it had begun with, whatever the provider calls it."""
    cut = messages()
    cut.cut = 3
    async with providing(cut, messages()) as at:
        again = CALL.replace("curl", "curl --retry 2 --retry-all-errors --retry-delay 1")
        seen = await run(client, again, **provider(at))
    assert len(at.asked) == 2
    first, second = of(seen, "usage")
    assert (first.is_partial, first.output_tokens, second.is_partial, second.output_tokens) == (True, 1, False, 42)
    (row,) = seen.end.model_use.usage
    assert (row.usage.requests, row.usage.partial_requests, row.usage.tokens) == (2, 1, 362 + 403)
    assert row.usage.cost_usd == pytest.approx(first.cost_usd + second.cost_usd)


async def test_the_key_is_nowhere_and_the_token_is_redacted(client: Client) -> None:
    async with providing(Reply([f"A provider that says {KEY}.\n".encode(), b"message_stop"])) as at:
        line = f"env | sort; {CALL}; cat /proc/1/environ /proc/self/environ | tr '\\0' '\\n'; ps -ef; sleep 1"
        name = new_id("door")
        await client.start(name, line, **provider(at))
        await client.watch(name, until=b"message_stop")
        places = [path for path in client.service.home.rglob("*") if path.is_file()]
        running_now = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
        environments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/environ") if readable(path)]
        written = [path.read_bytes() for path in places]
        seen = await client.watch(name)
    assert b"A provider that says " + b"*" * len(KEY) in seen.output, "the agent is not told it either"
    assert b"ANTHROPIC_API_KEY=[redacted:BOATYARD_DOOR_TOKEN]" in seen.output
    assert not [one for one in (*running_now, *environments, *written) if KEY.encode() in one]


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


async def test_an_agent_that_asks_no_model_has_used_none(client: Client) -> None:
    async with providing(messages()) as at:
        seen = await run(client, "true", **provider(at))
    assert not seen.end.HasField("model_use")


async def test_an_agents_own_settings_come_first(client: Client) -> None:
    async with providing(messages()) as at:
        seen = await run(client, "env", environment={"ANTHROPIC_BASE_URL": "http://own"}, **provider(at))
    variables = dict(line.split("=", 1) for line in seen.output.decode().splitlines())
    assert variables["ANTHROPIC_BASE_URL"] == "http://own"
    assert "ANTHROPIC_API_KEY" not in variables
    assert variables["BOATYARD_DOOR_URL"] == "http://127.0.0.1:3129"


@pytest.mark.parametrize("network", ["NONE", "ALLOW_LIST", "OPEN"])
async def test_the_door_is_in_every_network(client: Client, network: str) -> None:
    number = sandbox_pb2.Network.Value(f"NETWORK_{network}")
    async with providing(messages()) as at:
        seen = await run(client, CALL, network=number, **provider(at))
    assert b"message_stop" in seen.output
    assert len(of(seen, "usage")) == 1


async def test_without_a_sandbox_it_is_on_loopback_and_lets_nobody_else_in(client: Client) -> None:
    async with providing(messages()) as at:
        line = f"{CALL}; echo; {CALL.replace('$ANTHROPIC_API_KEY', 'other')}; ps -o pid= | wc -l"
        seen = await run(client, line, sandbox_tier=sandbox_pb2.SANDBOX_TIER_NONE, **provider(at))
    assert b"message_stop" in seen.output
    assert b"authentication_error" in seen.output
    assert (seen.end.state, len(at.asked), len(of(seen, "usage"))) == (State.STATE_SUCCEEDED, 1, 1)


STRANGER = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
silent = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(1000)]
print("SILENT", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_without_a_sandbox_another_user_of_the_machine_holds_no_agent_up(client: Client) -> None:
    async with providing(messages()) as at:
        name = new_id("door")
        line = f"echo ${{BOATYARD_DOOR_URL##*:}}; until [ -e go-{name} ]; do sleep 0.02; done; {CALL}"
        await client.start(name, line, sandbox_tier=sandbox_pb2.SANDBOX_TIER_NONE, **provider(at))
        port = (await client.watch(name, until=b"\n")).output.decode().strip()
        with subprocess.Popen(
            ["/usr/bin/python3", "-c", STRANGER, port],
            **AS_SOMEBODY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as stranger:
            assert stranger.stdout
            assert await asyncio.to_thread(stranger.stdout.readline) == b"SILENT\n"
            (client.service.workspace / f"go-{name}").touch()
            seen = await client.watch(name)
            stranger.communicate()
    assert b"message_stop" in seen.output
    assert stranger.returncode == 0


@pytest.mark.parametrize("tier", [sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE])
async def test_a_door_that_is_killed_is_made_again(client: Client, tier: int) -> None:
    async with providing(messages()) as at:
        name = new_id("door")
        line = f"{CALL} >/dev/null; echo first; until [ -e go-{name} ]; do sleep 0.02; done; {CALL}"
        await client.start(name, line, sandbox_tier=tier, **provider(at))
        await client.watch(name, until=b"first")
        os.kill(door_of(client, name), signal.SIGKILL)
        (client.service.workspace / f"go-{name}").touch()
        seen = await client.watch(name)
    assert b"message_stop" in seen.output
    assert len(of(seen, "usage")) == 2
    assert "the model's door was lost, and is made again" in [note.text for note in of(seen, "note")]


async def test_what_a_killed_door_was_asking_is_counted_as_unknown(client: Client) -> None:
    never = asyncio.Event()
    async with providing(Reply([b"a", b"b"], gate=never)) as at:
        name = new_id("door")
        await client.start(name, f"({CALL} && true); echo done", **provider(at))
        async with asyncio.timeout(30):
            while not at.asked:
                await asyncio.sleep(0.01)
        os.kill(door_of(client, name), signal.SIGKILL)
        never.set()
        seen = await client.watch(name)
    (usage,) = of(seen, "usage")
    assert (usage.is_partial, usage.provider, usage.HasField("cost_usd")) == (True, "anthropic", False)
    assert not seen.end.model_use.HasField("cost_usd")


@pytest.mark.slow
async def test_the_door_outlives_the_service_and_ends_with_its_runner(tmp_path: Path) -> None:
    async with running(tmp_path) as client, providing(messages()) as at:
        name = new_id("door")
        line = f"echo ready; until [ -e go ]; do sleep 0.02; done; {CALL}; echo; echo called; sleep 600"
        await client.start(name, line, **provider(at))
        await client.watch(name, until=b"ready")
        client.service.kill()
        (client.service.workspace / "go").touch()
        async with asyncio.timeout(30):
            while not at.asked:
                await asyncio.sleep(0.01)
        client.service.start()
        await client.watch(name, until=b"called")
        door = os.pidfd_open(door_of(client, name))
        os.kill(runner_of(client.service, name), signal.SIGKILL)
        seen = await client.watch(name)
        assert await asyncio.to_thread(lambda: select.select([door], [], [], 30)[0])
        os.close(door)
        assert (seen.end.reason, seen.end.model_use.turns, seen.end.model_use.tokens) == ("RUNNER_LOST", 1, 403)


def door_of(client: Client, execution_id: str) -> int:
    """Return the pid of an execution's door: the child of its runner that is no sandbox."""
    runner = runner_of(client.service, execution_id)
    (door,) = processes.children(runner, "services.execution.runner")
    return door


async def test_our_own_loop_goes_through_it_and_broken_answers_count(client: Client) -> None:
    cut = messages("A long answer.", message_id="msg_cut")
    cut.cut = 5
    async with providing(cut, messages(message_id="msg_whole")) as at:
        name = new_id("door")
        spec = client.service.spec("", prompt="Hi.", model="claude-sonnet-5-5", **provider(at, name="ours"))
        spec.agent.anthropic.SetInParent()
        await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=60)
        seen = await client.watch(name)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end.message
    assert [asked.headers["x-api-key"] for asked in at.asked] == [KEY, KEY]
    usages = [(one.request_id, one.provider, one.is_partial) for one in of(seen, "usage")]
    assert usages == [("msg_cut", "ours", True), ("msg_whole", "ours", False)]
    use = seen.end.model_use
    assert (use.turns, use.tokens, use.last_words) == (1, 362 + 403, "Hello.")
    assert use.cost_usd == pytest.approx(sum(one.cost_usd for one in of(seen, "usage")))


def test_an_agent_whose_door_is_left_out_begins_and_its_events_say_so(tmp_path: Path) -> None:
    """As in a container that cannot be entered; its runner may have been given keys all the same."""
    sandbox = SandboxSpec((b"/usr/bin/env",), Path("/"), environment={}, tier=Tier.NONE)
    run = RunDirectory(tmp_path / "run")
    run.create(Plan("run", "command", sandbox, Bounds(60.0, None, 1 << 20), no_door="the door is left out"), b"")
    one = ModelProvider(name="one", wire=ModelWire.MESSAGES, base_url="https://one.example", keys=(KEY,))
    given = os.fsencode(run.path) + b"\n" + Credentials(providers=(one,)).to_bytes()
    subprocess.run([sys.executable, "-m", "services.execution.runner"], input=given, check=True, timeout=60)
    assert run.result().state == "SUCCEEDED"
    said = run.events.read_bytes()
    assert b"the door is left out" in said
    assert b"BOATYARD_DOOR" not in said
    assert b"ANTHROPIC" not in said
