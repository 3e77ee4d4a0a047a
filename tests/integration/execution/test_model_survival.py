"""Kills and cancels in the middle of a conversation: it continues where it was, or nothing of it is left."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.ids import new_id
from tests.integration.execution.model import ModelClient, of, playing, results
from tests.integration.execution.service import Seen, State
from tests.integration.execution.test_survival import runner_of
from tests.kit import processes
from tests.kit.replay import bash

pytestmark = pytest.mark.slow

# Unique to this process: others who run these tests at the same time must not take our processes for theirs.
RUN = new_id("run")
TIERS = (sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE)
USED = {"input": 1000, "output": 100}
DONE = {"text": "All is done.", "usage": USED}


def kill_runner(model: ModelClient, execution_id: str) -> None:
    os.kill(runner_of(model.client.service, execution_id), signal.SIGKILL)


def check_nothing_stands_twice(seen: Seen) -> None:
    seen.check_whole()
    for kind, field in (("usage", "request_id"), ("turn_end", "turn")):
        ids = [getattr(event, field) for event in of(seen, kind)]
        assert len(ids) == len(set(ids)), (kind, ids)
    calls = [event.tool_call_id for event in of(seen, "tool_call")]
    assert calls == [event.tool_call_id for event in of(seen, "tool_result")], "a call has no result, or two"
    assert len(calls) == len(set(calls))
    assert seen.end.model_use.tokens == 1100 * len(of(seen, "usage"))
    assert seen.end.model_use.turns == len(of(seen, "turn_end"))


@pytest.mark.parametrize("tier", TIERS)
async def test_a_runner_killed_in_a_tool_is_replaced(directory: Path, tier: int) -> None:
    replies = [
        {"text": "One.", "tools": [bash("echo 1 >> file")], "usage": USED},
        {"text": "Two.", "tools": [bash("echo 2 >> file; sleep 60"), bash("echo 2b >> file")], "usage": USED},
        {"expects": "interrupted", "text": "Three.", "tools": [bash("cat file")], "usage": USED},
        DONE,
    ]
    async with playing(directory, replies) as model:
        await model.start(RUN, sandbox_tier=tier)
        before = await model.until(RUN, "tool_call", 2)
        while not (file := model.client.service.workspace / "file").exists() or "2" not in file.read_text():
            await asyncio.sleep(0.02)
        kill_runner(model, RUN)
        seen = await model.client.watch(RUN)
        asked = model.replay.requests()
    check_nothing_stands_twice(seen)
    assert seen.events[: len(before.events)] == before.events
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end
    assert [note.step for note in of(seen, "note") if note.step] == ["resume"]
    assert [request["reply"] for request in asked] == [1, 2, 3, 4], "what was answered was asked again"
    assert results(seen)[3] == "1\n2\n2b"
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": RUN}) == {}


async def test_a_runner_killed_in_mid_stream_is_replaced(directory: Path) -> None:
    replies = [{"text": "One.", "tools": [bash("true")], "usage": USED}, {**DONE, "faults": ["silence:60"]}]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        await model.until(RUN, "tool_result")
        while len(model.replay.requests()) < 2:
            await asyncio.sleep(0.02)
        kill_runner(model, RUN)
        seen = await model.client.watch(RUN)
    check_nothing_stands_twice(seen)
    assert (seen.end.state, seen.end.model_use.turns) == (State.STATE_SUCCEEDED, 2)


async def test_a_runner_that_is_always_killed_is_given_up(directory: Path) -> None:
    replies = [{"text": "One.", "tools": [bash("sleep 60")] * 5, "usage": USED}, DONE]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        for life in range(1, 5):
            await model.until(RUN, "tool_call", life)
            kill_runner(model, RUN)
        seen = await model.client.watch(RUN)
        left = sorted(path.name for path in model.client.service.run_directory(RUN).iterdir())
    seen.check_whole()
    assert (seen.end.state, seen.end.reason, seen.end.processes_left) == (State.STATE_FAILED, "RUNNER_LOST", 0)
    assert (seen.end.model_use.tokens, seen.end.model_use.tool_calls) == (1100, 4)
    assert "plan" not in left
    assert "task" not in left


async def test_a_conversation_does_not_notice_that_the_service_was_killed(directory: Path) -> None:
    replies = [
        {"text": f"{number}", "tools": [bash(f"sleep 0.3; echo {number}")], "usage": USED} for number in range(5)
    ]
    async with playing(directory, [*replies, DONE]) as model:
        await model.start(RUN)
        before = await model.until(RUN, "tool_result", 2)
        model.client.service.kill()
        await asyncio.sleep(0.3)
        model.client.service.start()
        seen = await model.client.watch(RUN)
    check_nothing_stands_twice(seen)
    assert seen.events[: len(before.events)] == before.events
    assert results(seen) == [str(number) for number in range(5)]
    assert not of(seen, "note")


async def test_service_and_runner_killed_at_once(directory: Path) -> None:
    replies = [{"text": "One.", "tools": [bash("sleep 60")], "usage": USED}, DONE]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        await model.until(RUN, "tool_call")
        runner = runner_of(model.client.service, RUN)
        model.client.service.kill()
        os.kill(runner, signal.SIGKILL)
        with (model.client.service.run_directory(RUN) / "history").open("ab") as history:
            history.write(b'{"kind": "res')
        model.client.service.start()
        await model.start_once_more()
        seen = await model.client.watch(RUN)
    check_nothing_stands_twice(seen)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("where", ["stream", "tool", "retry"])
async def test_a_cancel_leaves_nothing(directory: Path, where: str, tier: int) -> None:
    daemon = bash("setsid -f sleep 999; trap '' TERM; sleep 998 & echo begun > file; sleep 997")
    replies = {
        "stream": [{**DONE, "faults": ["silence:60"]}],
        "tool": [{"tools": [daemon]}, DONE],
        "retry": [{**DONE, "faults": ["429:50"]}],
    }[where]
    async with playing(directory, replies) as model:
        await model.start(RUN, sandbox_tier=tier)
        while not model.replay.requests():
            await asyncio.sleep(0.02)
        if where == "tool":
            while not (model.client.service.workspace / "file").exists():
                await asyncio.sleep(0.02)
        began = time.monotonic()
        await model.client.stop(RUN, 5)
        end = await model.client.end(RUN)
        took = time.monotonic() - began
    assert (end.state, end.processes_left) == (State.STATE_CANCELLED, 0)
    assert took < 4, "the grace was waited for, and nobody needs it"
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": RUN}) == {}


async def test_tools_that_die_are_started_again(directory: Path) -> None:
    kill_all = bash("echo 1 >> file; kill -9 -1")
    replies = [
        {"text": "One.", "tools": [kill_all, bash("cat file")], "usage": USED},
        {"text": "Two.", "tools": [bash("sleep 30", timeout_seconds=1), bash("echo still")], "usage": USED},
        DONE,
    ]
    async with playing(directory, replies) as model:
        await model.start(RUN)
        seen = await model.client.watch(RUN)
    check_nothing_stands_twice(seen)
    died, after, timed_out, still = results(seen)
    assert "started anew" in died
    assert (after, still) == ("1", "still")
    assert "took longer than 1 s" in timed_out
    assert [result.is_error for result in of(seen, "tool_result")] == [True, False, True, False]


async def test_tools_that_always_die_end_the_run(directory: Path) -> None:
    replies = [{"text": "One.", "tools": [bash("kill -9 -1")] * 8, "usage": USED}, DONE]
    async with playing(directory, replies) as model:
        seen = await model.run(RUN)
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "SANDBOX_FAILED")
    assert "6 times" in seen.end.message


@pytest.mark.parametrize("forged", [r"b'[1]\n{\n'", r"b'[' * 50_000 + b'\n'"])
async def test_forged_answers_are_no_answers(directory: Path, forged: str) -> None:
    """A program in the sandbox may write to the pipe of the tools' answers; the runner copes with that."""
    forge = (
        "import os, glob\n"
        "for path in glob.glob('/proc/*/fd/*'):\n"
        "    try:\n"
        "        if 'pipe' in os.readlink(path): open(path, 'wb', buffering=0).write(FORGED)\n"
        "    except OSError: pass\n"
    )
    program = f"FORGED = {forged}\n{forge}"
    replies = [{"text": "One.", "tools": [bash(f'timeout 2 python3 -c "{program}"')], "usage": USED}, DONE]
    async with playing(directory, replies) as model:
        seen = await model.run(RUN)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end
    (answer,) = results(seen)
    assert "it said what is no answer" in answer


async def test_a_sandbox_that_cannot_be_made_costs_no_token(directory: Path) -> None:
    async with playing(directory, [DONE]) as model:
        seen = await model.run(RUN, read_only_paths=[b"/no/such/path"])
        assert model.replay.requests() == [] if model.replay.log.exists() else True
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "SANDBOX_FAILED")
    assert "/no/such/path" in seen.end.message
    assert isinstance(seen.end, pb.NodeExecution)
