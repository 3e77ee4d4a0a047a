"""A recording of an execution's models is replayed with no provider and no network: the same files come of it."""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import model_pb2, replay_pb2, sandbox_pb2
from boatyard.agent.v1.agent_pb2 import AnthropicEngine
from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.recordings import packed
from services.common.ids import new_id
from tests.integration.execution.model import of
from tests.integration.execution.service import Client, Seen, State, running
from tests.kit.replay import bash, replaying, write_script

KEY = f"sk-ant-sworn-to-secrecy-{secrets.token_hex(8)}"
SECRET = f"secret-of-the-project-{secrets.token_hex(8)}"
CURL = r"""
ask() { curl -sS --max-time 60 -H "x-api-key: $ANTHROPIC_API_KEY" -d @- "$ANTHROPIC_BASE_URL/v1/messages"; }
said() { sed -n 's/.*"type": "text_delta", "text": "\([^"]*\)".*/\1/p' | tr -d '\n'; }
body() { printf '{"model": "claude-sonnet-5-5", "max_tokens": 9, "stream": true, "messages": [%s]}' "$1"; }
saying() { printf '{"role": "%s", "content": "%s"}' "$1" "$2"; }
begin=$(saying user "Begin. $(date -Ins) $MINE")
one=$(body "$begin" | ask | said)
two=$(body "$begin, $(saying assistant "$one"), $(saying user More.)" | ask | said)
printf '%s\n%s\n' "$one" "$two" > file
"""
ASK, _, _ = CURL.partition("said()")


def body_of(text: str) -> str:
    return json.dumps({"model": "claude-sonnet-5-5", "messages": [{"role": "user", "content": text}]})


REPLIES = [{"text": "The first line."}, {"text": "And another one, in pieces that are longer than that."}]
WORK = [
    {
        "thinking": "I think.",
        "text": "I write.",
        "tools": [bash("echo $RANDOM > /tmp/x; date > /tmp/y; echo 1 > file")],
    },
    {"text": "More.", "tools": [bash("date; mktemp; echo 2 >> file; time sleep 0.01")]},
    {"text": "All is done."},
]
AGENTS = {"curl": REPLIES, "anthropic": WORK}


def spec(client: Client, agent: str, **fields: object) -> pb.ExecutionSpec:
    own = {"prompt": "Do it.", "network": sandbox_pb2.NETWORK_NONE, "redacted": {"MINE": SECRET}, **fields}
    made = client.service.spec(CURL if agent == "curl" else "", **own)
    made.agent.environment["MINE"] = SECRET
    if agent == "anthropic":
        made.agent.model = "claude-sonnet-5-5"
        made.agent.anthropic.MergeFrom(AnthropicEngine())
    return made


async def run(client: Client, made: pb.ExecutionSpec) -> tuple[str, Seen]:
    name = new_id("replay")
    (client.service.workspace / "file").unlink(missing_ok=True)
    await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=made), timeout=60)
    seen = await client.watch(name)
    seen.check_whole()
    return name, seen


async def recording_of(client: Client, name: str, offset: int = 0) -> bytes:
    request = pb.ReadRecordingRequest(execution_id=name, offset=offset)
    return b"".join([answer.data async for answer in client.stub.ReadRecording(request)])


async def recorded(directory: Path, client: Client, agent: str, replies: Sequence[dict], **fields: object) -> bytes:
    """Run an agent against a scripted model; return what was recorded."""
    script = write_script(directory / "script.toml", replies)
    with replaying(directory, script, key=KEY) as model:
        made = spec(client, agent, record=True, **fields)
        wire = model_pb2.MODEL_WIRE_MESSAGES
        allowed = ["127.0.0.1/32"]
        made.providers.add(name="one", wire=wire, base_url=model.url, keys=[KEY], allowed_addresses=allowed)
        name, seen = await run(client, made)
    assert seen.end.state == State.STATE_SUCCEEDED, (seen.end, seen.output)
    tape = await recording_of(client, name)
    assert await recording_of(client, name, 100) == tape[100:]
    assert not [secret for secret in (KEY, SECRET) if secret.encode() in tape]
    return tape


def replay(tape: bytes, matching: int = replay_pb2.Replay.MATCHING_UNSPECIFIED) -> replay_pb2.Replay:
    return replay_pb2.Replay(recording=packed(tape), matching=matching)


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
async def test_the_same_files_come_of_a_replay_with_no_provider(agent: str, directory: Path) -> None:
    async with running(directory) as client:
        tape = await recorded(directory, client, agent, AGENTS[agent])
        made = (client.service.workspace / "file").read_bytes()
        name, seen = await run(client, spec(client, agent, replay=replay(tape)))
        assert seen.end.state == State.STATE_SUCCEEDED, (seen.end, of(seen, "note"), seen.output)
        assert (client.service.workspace / "file").read_bytes() == made
        left = {path.name for path in (client.service.home / "execution" / "runs" / name).iterdir()}
    assert not left & {"replay", "replay.played", "recording"}
    used = of(seen, "usage")
    assert {usage.provider for usage in used} == {"(replay)"}
    assert seen.end.model_use.cost_usd == 0
    assert seen.end.model_use.HasField("cost_usd")
    assert seen.end.model_use.turns == len(AGENTS[agent])


@pytest.mark.slow
async def test_a_request_that_was_not_recorded_ends_the_model_and_says_where_it_differs(directory: Path) -> None:
    async with running(directory) as client:
        tape = await recorded(directory, client, "anthropic", WORK)
        asked = spec(client, "anthropic", replay=replay(tape))
        asked.prompt = "Do something else."
        _, seen = await run(client, asked)
        ordered = spec(client, "anthropic", replay=replay(tape, replay_pb2.Replay.MATCHING_ORDER))
        ordered.prompt = asked.prompt
        _, by_order = await run(client, ordered)
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "REPLAY_MISMATCH")
    assert "messages[0].content" in seen.end.message
    assert "'Do it.' in the recording, and 'Do something else.' here" in seen.end.message
    assert by_order.end.state == State.STATE_SUCCEEDED


@pytest.mark.slow
async def test_an_agent_that_shrugs_off_what_was_not_recorded_fails_all_the_same(directory: Path) -> None:
    async with running(directory) as client:
        tape = await recorded(directory, client, "curl", REPLIES)
        ends = {}
        for matching in (replay_pb2.Replay.MATCHING_STRICT, replay_pb2.Replay.MATCHING_ORDER):
            asked = spec(client, "curl", replay=replay(tape, matching))
            other = body_of("Something else.")
            asked.agent.command.line = f"{ASK}\nfor n in 1 2 3; do echo '{other}' | ask; done; exit 0"
            _, seen = await run(client, asked)
            ends[matching] = seen
    strict, by_order = ends[replay_pb2.Replay.MATCHING_STRICT], ends[replay_pb2.Replay.MATCHING_ORDER]
    assert (strict.end.state, strict.end.reason) == (State.STATE_FAILED, "REPLAY_MISMATCH")
    assert "messages[0].content" in strict.end.message
    assert by_order.end.state == State.STATE_SUCCEEDED, "by order it may do without an answer"
    assert any("have all been answered" in note.text for note in of(by_order, "note"))


@pytest.mark.slow
async def test_what_cannot_be_replayed_or_read_is_refused(directory: Path) -> None:
    async with running(directory) as client:
        name, _ = await run(client, spec(client, "curl", record=True))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await run(client, spec(client, "curl", replay=replay_pb2.Replay(recording=b"x")))
        cut = packed(b'{"recording": 1}\n' + secrets.token_hex(1 << 20).encode())[:-50_000]
        with pytest.raises(grpc.aio.AioRpcError) as cut_off:
            await run(client, spec(client, "curl", replay=replay_pb2.Replay(recording=cut)))
        missing = []
        for each in (name, new_id("nobody")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await recording_of(client, each)
            missing.append(error.value)
    assert refused.value.code() is cut_off.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "spec.replay.recording" in str(refused.value.details())
    assert "is cut off" in str(cut_off.value.details())
    assert [error.code() for error in missing] == [grpc.StatusCode.NOT_FOUND] * 2
    assert "or its agent had no provider" in str(missing[0].details()), "it was run with --record"
