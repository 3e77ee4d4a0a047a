"""A model as the agent: it acts in the sandbox, each act is reported as it happens, and failures are overcome."""

import asyncio
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.agent.v1.agent_pb2 import AgentSettings, AnthropicEngine
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.errors import FailedPrecondition, Invalid
from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.integration.execution.model import KEY, of, playing, results
from tests.integration.execution.service import State, running
from tests.kit import processes
from tests.kit.replay import bash

# Unique to this process: others who run these tests at the same time must not take our processes for theirs.
RUN = new_id("run")
TIERS = (sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE)
USED = {"input": 1000, "output": 100, "cache_read": 10, "cache_write": 1}
DONE = {"text": "All is done.", "usage": USED}


@pytest.mark.parametrize("tier", [TIERS[0], pytest.param(TIERS[1], marks=pytest.mark.slow)])
async def test_a_model_works_and_all_is_told(directory: Path, tier: int) -> None:
    work = [bash("echo made > file; cd /tmp; X=kept"), {"name": "view", "input": {"path": "file"}}]
    replies = [
        {"thinking": "I think.", "text": "I say.", "tools": work, "usage": USED},
        {"text": "Again.", "tools": [bash("pwd; echo $X; exit 3"), bash("pwd")], "usage": USED},
        DONE,
    ]
    async with playing(directory, replies) as model:
        seen = await model.run(RUN, sandbox_tier=tier)
    assert (model.client.service.workspace / "file").read_text() == "made\n"
    # Left out: vitals come at intervals of time, notes are for people, and the door says by itself what was used.
    apart = {"note", "vitals", "usage"}
    kinds = [kind for event in seen.events if (kind := event.WhichOneof("kind")) not in apart]
    turn = ["text", "turn_end"]
    calls = ["tool_call", "tool_result"] * 2
    assert kinds == ["state_change", "thinking", *turn, *calls, *turn, *calls, *turn, "state_change"]
    assert [text.text for text in of(seen, "text")] == ["I say.", "Again.", "All is done."]
    ends = [(end.turn, end.stop_reason) for end in of(seen, "turn_end")]
    assert ends == [(1, "tool_use"), (2, "tool_use"), (3, "end_turn")]
    assert results(seen)[1:] == [
        "     1\tmade",
        "/tmp\nkept\n[exit code 3; it ended the shell itself: the next command gets a new one]",
        "/tmp",
    ]
    assert seen.end.state == State.STATE_SUCCEEDED
    assert seen.end.processes_left == 0
    use = seen.end.model_use
    assert (use.tokens, use.turns, use.tool_calls, use.last_words) == (3333, 3, 4, "All is done.")
    one = (1000 * 2 + 100 * 10 + 10 * 0.1 + 1 * 2.5) / 1e6
    assert use.cost_usd == pytest.approx(3 * one)
    assert [usage.cost_usd for usage in of(seen, "usage")] == pytest.approx([one] * 3)
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": RUN}) == {}


@pytest.mark.slow
async def test_a_storm_of_faults_changes_nothing(directory: Path) -> None:
    replies = [
        {"text": "One.", "tools": [bash("echo 1 >> file")], "faults": ["429:0.3", "429:0.1", "500"], "usage": USED},
        {"text": "Two.", "tools": [bash("echo 2 >> file")], "faults": ["529", "529", "refused"], "usage": USED},
        {"text": "Three.", "tools": [bash("echo 3 >> file")], "faults": ["error", "cut", "quiet"], "usage": USED},
        {**DONE, "faults": ["silence:0.5"]},
    ]
    async with playing(directory, replies) as model:
        seen = await model.run(RUN, idle_timeout=Duration(seconds=30))
        asked = model.replay.requests()
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end
    assert (model.client.service.workspace / "file").read_text() == "1\n2\n3\n"
    whole = [request["message_id"] for request in asked if request["fault"] in (None, "silence")]
    used = [usage for usage in of(seen, "usage") if usage.request_id in whole]  # those that broke off count apart
    assert [usage.request_id for usage in used] == whole
    assert [usage.input_tokens + usage.output_tokens for usage in used] == [1100] * 4
    assert [end.turn for end in of(seen, "turn_end")] == [1, 2, 3, 4]
    times = [request["time"] for request in asked]
    assert times[1] - times[0] >= 0.3, "it came back before it was told to"
    said = {text.request_id: text.text for text in of(seen, "text") if text.request_id in whole}
    assert list(said.values()) == ["One.", "Two.", "Three.", "All is done."]


@pytest.mark.slow
async def test_silence_has_an_end(directory: Path) -> None:
    async with playing(directory, [{**DONE, "faults": ["silence:60"]}]) as model:
        async with asyncio.timeout(50):
            seen = await model.run(RUN, idle_timeout=Duration(seconds=1))
    assert (seen.end.state, seen.end.reason, seen.end.processes_left) == (State.STATE_FAILED, "IDLE", 0)
    assert "1 s" in seen.end.message


@pytest.mark.slow
async def test_a_tool_that_takes_long_is_no_silence(directory: Path) -> None:
    async with playing(directory, [{"tools": [bash("sleep 1.5")]}, DONE]) as model:
        seen = await model.run(RUN, idle_timeout=Duration(nanos=700_000_000))
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end


@pytest.mark.slow
async def test_time_has_an_end(directory: Path) -> None:
    async with playing(directory, [{"tools": [bash("sleep 60")]}, DONE]) as model:
        seen = await model.run(RUN, timeout=Duration(seconds=3))
    assert (seen.end.reason, seen.end.processes_left) == ("TIMED_OUT", 0), seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bounds", "word"), [({"max_turns": 2}, "max_turns"), ({"token_budget": 2000}, "token_budget")]
)
async def test_budgets_end_what_exceeds_them(directory: Path, bounds: dict, word: str) -> None:
    replies = [{"text": f"{number}", "tools": [bash("true")], "usage": USED} for number in range(4)]
    async with playing(directory, replies) as model:
        seen = await model.run(RUN, **bounds)
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "BUDGET_EXCEEDED")
    assert word in seen.end.message
    assert (seen.end.model_use.turns, seen.end.model_use.tokens) == (2, 2222)


@pytest.mark.slow
async def test_an_answer_that_is_too_long_is_gone_on_with(directory: Path) -> None:
    replies = [{"text": "I was", "stop": "max_tokens"}, {"text": "going to say this.", "expects": "cut off"}]
    async with playing(directory, replies) as model:
        seen = await model.run(RUN)
    assert seen.end.state == State.STATE_SUCCEEDED
    assert seen.end.model_use.last_words == "going to say this."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replies", "word"),
    [
        ([{**DONE, "faults": ["404"]}], "status 404"),
        ([{"text": "No.", "stop": "refusal"}], "declines"),
        ([{"tools": [bash("true")]}], "has 1 replies"),
    ],
)
async def test_what_is_refused_for_good_is_not_tried_again(directory: Path, replies: list, word: str) -> None:
    async with playing(directory, replies) as model:
        seen = await model.run(RUN)
        assert not [note for note in of(seen, "note") if note.step == "retry"]
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "MODEL_FAILED")
    assert word in seen.end.message


async def test_a_key_that_is_refused_is_not_told(directory: Path) -> None:
    wrong = "sk-ant-wrong-and-secret"
    async with playing(directory, [DONE], key=wrong) as model:
        seen = await model.run(RUN)
    assert seen.end.reason == "MODEL_FAILED"
    assert "invalid API key: ***" in seen.end.message
    assert wrong not in str(seen)


@pytest.mark.slow
async def test_a_cost_that_is_not_known_is_not_made_up(directory: Path) -> None:
    async with playing(directory, [DONE]) as model:
        seen = await model.run(RUN, model="somebody-elses-model")
    assert seen.end.model_use.tokens == 1111
    assert not seen.end.model_use.HasField("cost_usd")
    assert not of(seen, "usage")[0].HasField("cost_usd")


async def test_without_a_key_it_is_refused_at_once(directory: Path) -> None:
    async with playing(directory, [DONE], key="") as model:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await model.start(RUN)
    error = service_error(caught.value)
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "MODEL_KEY_MISSING"
    assert "no provider of that wire" in error.message


async def test_what_is_wrong_with_a_request_is_said_at_once(directory: Path) -> None:
    async with running(directory) as client:
        spec = client.service.spec("")
        spec.agent.MergeFrom(AgentSettings(anthropic=AnthropicEngine(max_tokens=-1), max_turns=0, token_budget=0))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=RUN, spec=spec))
    error = service_error(caught.value)
    assert isinstance(error, Invalid)
    names = ("agent.anthropic.max_tokens", "agent.max_turns", "agent.model", "agent.token_budget", "prompt")
    assert {field for field, _ in error.violations} == {f"spec.{name}" for name in names}


@pytest.mark.slow
async def test_what_is_private_stays_so(directory: Path) -> None:
    home = directory / "home"
    tricks = [
        bash(f"ln -s {home} mine; ls -la mine/ 2>&1; cat mine/cell-token; cat mine/execution/runs/*/history"),
        {"name": "view", "input": {"path": "mine/cell-token"}},
        {"name": "view", "input": {"path": "mine"}},
        {"name": "search", "input": {"pattern": ".", "path": "mine"}},
        {"name": "create", "input": {"path": "mine/execution/new", "content": "x"}},
        bash("cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; ls -l /proc/*/fd"),
        {"name": "view", "input": {"path": "/proc/1/environ"}},
        bash("env; head -c 100 /proc/1/mem 2>&1; grep -rl sworn-to /workspace /home /tmp /run /etc 2>/dev/null"),
        bash("echo {}$(cat /proc/1/root/etc/shadow 2>&1); (exec 3<>/dev/tcp/127.0.0.1/80) 2>&1"),
    ]
    async with playing(directory, [{"tools": tricks}, {"tools": [bash("sleep 60")]}, DONE]) as model:
        await model.start(RUN)
        seen = await model.until(RUN, "tool_result", len(tricks))
        home_files = [file for file in home.rglob("*") if file.is_file() and file.stat().st_size < 1 << 24]
        assert not [file for file in home_files if KEY.encode() in file.read_bytes()], "the key is on the disk"
        ours = [pid for pid in processes._pids() if b"services.execution" in processes._read(pid, "cmdline")]
        lines = [processes._read(pid, "cmdline") for pid in processes._pids()]
        listing = b"".join(line for line in lines if b"tests.kit.replay" not in line)
        assert KEY.encode() not in listing
        assert not [pid for pid in ours if KEY.encode() in processes._read(pid, "environ")]
        token = (home / "cell-token").read_text().strip()
        await model.client.stop(RUN, 0)
    told = str(seen)
    assert KEY not in told
    assert token not in told
    assert "execution.db" not in told
    assert "tool_use" not in "".join(results(seen)), "it has read the history"
    assert not (home / "execution" / "new").exists()
