"""Agents that speak the Agent Client Protocol: told everything, heard in everything, and judged by their proper end."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.agent.v1.agent_pb2 import CommandEngine
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import Invalid
from services.common.ids import new_id
from tests.integration.execution.conversations import PEER, talk
from tests.integration.execution.model import of
from tests.integration.execution.service import Client, State
from tests.integration.execution.test_contract import refused
from tests.kit.uids import give_to_agents

SECRET = "swordfish-and-more"
ALLOWED = [{"optionId": "yes", "kind": "allow_once", "name": "Yes"}]


def chunk(words: str, kind: str = "agent_message_chunk") -> dict[str, Any]:
    return {"update": {"sessionUpdate": kind, "content": {"type": "text", "text": words}}}


def tool(update: str = "tool_call", call_id: str = "t1", **fields: Any) -> dict[str, Any]:
    return {"update": {"sessionUpdate": update, "toolCallId": call_id, **fields}}


def said(seen: Any, kind: str = "text") -> str:
    return "".join(event.text for event in of(seen, kind))


@pytest.mark.parametrize(
    "tier",
    [
        sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP,
        pytest.param(sandbox_pb2.SANDBOX_TIER_NONE, marks=pytest.mark.slow),
    ],
)
async def test_a_fix_is_made_told_and_succeeds_by_its_proper_end(shared: Client, tier: int) -> None:
    plan = {"sessionUpdate": "plan", "entries": [{"content": "look", "status": "pending"}]}
    one = talk(
        shared,
        [
            chunk("I have ", "agent_thought_chunk"),
            chunk("to look.", "agent_thought_chunk"),
            {"update": plan},
            {"run": "echo fixed > file.txt; cat file.txt"},
            chunk("It is "),
            chunk("fixed."),
        ],
    )
    seen = await one.run(model="m-1", system_prompt="Be short.", sandbox_tier=tier)
    assert (seen.end.state, seen.end.reason) == (State.STATE_SUCCEEDED, ""), seen.end
    assert (one.workspace / "file.txt").read_text() == "fixed\n"
    assert (said(seen, "thinking"), said(seen)) == ("I have to look.", "It is fixed.")
    (call,), (result,), (end,) = (of(seen, kind) for kind in ("tool_call", "tool_result", "turn_end"))
    assert (call.tool, json.loads(call.input)) == (
        "execute",
        {"command": "echo fixed > file.txt; cat file.txt"},
    )
    assert (result.tool_call_id, result.output, result.is_error) == (call.tool_call_id, "fixed\n", False)
    assert end.stop_reason == "end_turn"
    assert "[pending] look" in [note.text for note in of(seen, "note") if note.step == "plan"]
    assert (seen.end.model_use.last_words, seen.end.model_use.turns) == ("It is fixed.", 1)
    (first,) = one.told("initialize")
    assert first["clientCapabilities"] == {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
    (asked,) = one.told("session/prompt")
    assert [block["text"] for block in asked["prompt"]] == ["Be short.", "Fix it."]


ENDS = [
    ("end_turn", None, ""),
    ("refusal", "MODEL_FAILED", "declines"),
    ("max_tokens", "MODEL_FAILED", "cut off"),
    ("max_turn_requests", "BUDGET_EXCEEDED", "requests"),
    ("cancelled", "AGENT_FAILED", "which nobody asked for"),
    ("tired", "AGENT_FAILED", "tired"),
    ("half of a \ud83d", "AGENT_FAILED", "half of a ?"),
    ("no end " * 50_000, "AGENT_FAILED", "no end no end"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "reason", "words"), ENDS, ids=[stop[:9].strip("\ud83d") for stop, *_ in ENDS])
async def test_an_end_means_what_the_agent_says(shared: Client, stop: str, reason: str | None, words: str) -> None:
    seen = await talk(shared, [{"stop": stop}]).run()
    assert (seen.end.reason or None, words in seen.end.message) == (reason, True), seen.end
    assert len(seen.end.message) < 10_000


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no session": ({"refuses": ["session/new"]}, "session/new failed: no session/new today"),
    "another version": ({"initialize": {"protocolVersion": 2}}, "speaks version 2"),
    "a turn that fails": (
        {"turns": [[{"error": {"code": 1, "message": "no", "data": {"details": "why"}}}]]},
        "no: why",
    ),
    "an end in the midst": ({"turns": [[chunk("So"), {"exit": 0}]]}, "ended before its work was done"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_has_no_proper_end_is_no_success(shared: Client, fault: str) -> None:
    script, words = FAULTS[fault]
    one = talk(shared)
    one.write({"turns": [[]], **script})
    seen = await one.run()
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "AGENT_FAILED"), seen.end
    assert words in seen.end.message


@pytest.mark.slow
@pytest.mark.parametrize("line", ["cat", "true", "echo hello", "echo '{\"a\": 1}'", "cat >/dev/null & echo '{'"])
async def test_a_program_that_does_not_speak_the_protocol_is_no_success(shared: Client, line: str) -> None:
    seen = await talk(shared).run(f"{line}; exit")
    assert (seen.end.state, seen.end.reason) == (State.STATE_FAILED, "AGENT_FAILED"), seen.end


async def test_options_are_chosen_by_their_kind_and_what_was_not_offered_is_refused(shared: Client) -> None:
    options = [{"optionId": kind, "kind": kind} for kind in ("reject_once", "allow_always", "allow_once")]
    call = {"toolCallId": "t1", "title": "ls", "kind": "execute", "rawInput": {"command": "ls"}}
    one = talk(
        shared,
        [
            {"ask": {"toolCall": call, "options": options}},
            {"ask": {"toolCall": {"toolCallId": "t1"}, "options": options[:2]}},
            {"call": ["fs/write_text_file", {"path": "/x", "content": "x"}]},
            {"call": ["terminal/create", {"command": "ls"}]},
            tool("tool_call_update", status="completed", rawOutput={"text": "a.txt"}),
        ],
    )
    seen = await one.run()
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end
    assert [each.get("outcome", each.get("code")) for each in one.outcomes] == [
        {"outcome": "selected", "optionId": "allow_once"},
        {"outcome": "selected", "optionId": "allow_always"},
        -32601,
        -32601,
    ]
    (result,) = of(seen, "tool_result")
    assert json.loads(result.output) == {"text": "a.txt"}


ASKED = {
    "toolCall": {"toolCallId": "t1", "kind": "execute", "title": "ls", "rawInput": {"command": "ls"}},
    "options": [{"optionId": kind, "kind": kind} for kind in ("allow_always", "reject_once", "allow_once")],
}


@pytest.mark.parametrize("allow", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_a_person_is_asked_once_and_holds_up_nothing_but_the_agent(shared: Client, allow: bool) -> None:
    one = talk(shared, [{"ask": ASKED}])
    silence = 0 if allow else 5
    name = await one.begin(
        ask_before=["edit", "execute"], **({"idle_timeout": {"seconds": silence}} if silence else {})
    )
    async with asyncio.timeout(30):
        while not (asked := (await shared.get(name)).pending_permissions):
            await asyncio.sleep(0.02)
    await asyncio.sleep(silence * 1.1)  # longer than it may be silent
    answer = pb.ResolvePermissionRequest(execution_id=name, permission_id=asked[0].permission_id, allow=allow)
    await shared.stub.ResolvePermission(answer)
    seen = await shared.watch(name)
    assert (asked[0].tool, json.loads(asked[0].input)) == ("execute", {"command": "ls"})
    assert seen.end.reason == ("" if allow else "AGENT_FAILED"), seen.end
    assert one.outcomes[0]["outcome"]["optionId"] == ("allow_once" if allow else "reject_once")
    assert [len(of(seen, kind)) for kind in ("permission_request", "permission_answer")] == [1, 1]
    assert len(seen.end.pending_permissions) == 0


@pytest.mark.slow
async def test_what_is_refused_by_its_kind_is_asked_of_nobody(shared: Client) -> None:
    other = {**ASKED, "toolCall": {"toolCallId": "t2", "title": "of no kind"}}
    one = talk(shared, [{"ask": ASKED}, {"ask": other}])
    seen = await one.run(refuse=["execute", "fetch"], ask_before=["execute"])
    assert [each["outcome"]["optionId"] for each in one.outcomes] == ["reject_once", "allow_once"]
    assert (seen.end.reason, "(execute)" in seen.end.message) == ("AGENT_FAILED", True), seen.end
    assert of(seen, "permission_request") == []


@pytest.mark.slow
async def test_a_question_that_is_open_when_it_is_stopped_is_never_mind(shared: Client) -> None:
    one = talk(shared, [{"ask": ASKED}])
    name = await one.begin(ask_before=["execute"])
    async with asyncio.timeout(30):
        while not (await shared.get(name)).pending_permissions:
            await asyncio.sleep(0.02)
    await shared.stop(name, 60)
    assert (await shared.end(name)).state == State.STATE_CANCELLED
    assert one.outcomes == [{"outcome": {"outcome": "cancelled"}}]


HELD: list[tuple[dict[str, Any], str]] = [
    ({"prompt_delivery": CommandEngine.PROMPT_DELIVERY_ACP, "refuse": ["bash"]}, "refuse"),
    ({"prompt_delivery": CommandEngine.PROMPT_DELIVERY_STDIN, "ask_before": ["edit"]}, "ask_before"),
]


@pytest.mark.parametrize(("own", "field"), HELD, ids=["no kind of tools", "asks nobody"])
async def test_what_could_not_be_held_is_refused(shared: Client, own: dict[str, Any], field: str) -> None:
    spec = shared.service.spec("", prompt="Fix it.")
    spec.agent.command.MergeFrom(CommandEngine(line="true", **own))
    error = await refused(shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=new_id("run"), spec=spec)))
    assert isinstance(error, Invalid)
    assert [name for name, _ in error.violations] == [f"spec.agent.command.{field}"]


@pytest.mark.slow
async def test_a_tool_that_could_not_be_allowed_counts_as_refused(shared: Client) -> None:
    ask = {"toolCall": {"toolCallId": "t1", "kind": "edit"}, "options": [{"optionId": "n", "kind": "reject_once"}]}
    seen = await talk(shared, [{"ask": ask}]).run()
    assert (seen.end.reason, "refused 1 of its tool calls (edit)" in seen.end.message) == ("AGENT_FAILED", True)


async def test_updates_that_leave_something_out_or_are_of_no_known_kind_lose_nothing(shared: Client) -> None:
    shown = [{"type": "content", "content": {"type": "text", "text": "three lines"}}]
    change = [{"type": "diff", "path": "a.py", "oldText": "x\n", "newText": "y\n"}]
    one = talk(
        shared,
        [
            tool(title="Read a file", kind="read"),
            tool("tool_call_update", rawInput={"path": "a.py"}),
            tool("tool_call_update", content=shown),
            tool("tool_call_update", call_id="t2", kind="edit", status="completed", content=change),
            tool("tool_call_update", call_id="t2", status="completed"),
            tool(call_id="t3", title="ask the web", status="failed"),
            {"update": {"sessionUpdate": "_auth/status_update", "much": [1, 2]}},
            {"update": "nonsense"},
            {"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "image", "data": "AAAA"}}},
            {"write": "a line of its own\n"},
        ],
    )
    seen = await one.run()
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end
    assert [(call.tool_call_id, call.tool) for call in of(seen, "tool_call")] == [
        ("t1", "read"),
        ("t2", "edit"),
        ("t3", "ask the web"),
    ]
    results = {result.tool_call_id: (result.output, result.is_error) for result in of(seen, "tool_result")}
    assert results["t1"] == ("three lines", False), "it has ended with the turn"
    assert "+y" in results["t2"][0]
    assert results["t3"] == ("", True)
    raw = b"".join(event.output.data for event in seen.events if event.output.stream == 3)
    assert all(words in raw for words in (b'"much": [1, 2]', b'"nonsense"', b'"AAAA"'))
    assert [event.output.data for event in seen.events if event.output.stream == 1] == [b"a line of its own\n"]


@pytest.mark.slow
async def test_a_secret_in_pieces_is_in_no_event(shared: Client) -> None:
    pieces = [chunk(SECRET[start : start + 3]) for start in range(0, len(SECRET), 3)]
    seen = await talk(shared, [chunk("It is "), *pieces, chunk(".")]).run(secrets={"PASSWORD": SECRET})
    assert said(seen) == "It is [redacted:PASSWORD]."
    assert SECRET[:6].encode() not in seen.output


@pytest.mark.slow
async def test_lines_may_be_of_many_megabytes(shared: Client) -> None:
    one = talk(shared, [tool(title="big", status="completed", rawInput={"x": 1}, rawOutput="x" * 900_000)])
    seen = await one.run(prompt="p" * 1_000_000)
    assert seen.end.state == State.STATE_SUCCEEDED, seen.end
    assert len(of(seen, "tool_result")[0].output) == 64 * 1024
    assert one.told("session/prompt")[0]["prompt"] == [{"type": "text", "text": "p" * 1_000_000}]


@pytest.mark.slow
async def test_its_mode_and_model_are_set_as_it_offers_them(shared: Client) -> None:
    options = [
        {"id": "model", "category": "model", "options": [{"value": "boatyard/m-1"}, {"value": "boatyard/m-2"}]},
        {"id": "thinking", "category": "mode", "options": [{"value": "x"}]},
    ]
    one = talk(shared, session={"configOptions": options})
    assert (await one.run(model="m-2")).end.state == State.STATE_SUCCEEDED
    (chosen,) = one.told("session/set_config_option")
    assert chosen == {"sessionId": "sess-1", "configId": "model", "value": "boatyard/m-2"}
    other = talk(shared, session={"models": {"availableModels": [{"modelId": "m-1"}]}})
    assert (await other.run(model="m-1")).end.state == State.STATE_SUCCEEDED
    assert other.told("session/set_model") == [{"sessionId": "sess-1", "modelId": "m-1"}]


@pytest.mark.parametrize("stubborn", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_it_is_cancelled_by_its_own_word_and_killed_whatever_it_says(shared: Client, stubborn: bool) -> None:
    wait: dict[str, Any] = {"until": "never" if stubborn else "cancel"}
    one = talk(shared, [chunk("Now."), {"run": "touch begun"}, wait], stubborn=stubborn)
    name = await one.begin()
    async with asyncio.timeout(30):
        while not (one.workspace / "begun").exists():
            await asyncio.sleep(0.02)
    await shared.stop(name, 60)
    async with asyncio.timeout(15):  # it has 5 s, whatever the grace period is
        end = await shared.end(name)
    assert (end.state, end.processes_left) == (State.STATE_CANCELLED, 0)
    assert len(one.told("session/cancel")) == 1


async def test_messages_are_told_when_a_turn_has_ended(shared: Client) -> None:
    one = talk(shared, [{"run": "touch begun"}, {"until": "gate"}, chunk("One.")], [chunk("Two.")])
    name = await one.begin()
    async with asyncio.timeout(30):
        while not (one.workspace / "begun").exists():
            await asyncio.sleep(0.02)
    for number in (1, 2):
        request = pb.SendMessageRequest(execution_id=name, message_id=f"m{number}", text=f"and {number}")
        await shared.stub.SendMessage(request)
    (one.workspace / "gate").touch()
    seen = await shared.watch(name)
    assert (seen.end.state, said(seen)) == (State.STATE_SUCCEEDED, "One.Two.")
    assert [each.message_id for each in of(seen, "message_delivered")] == ["m1", "m2"]
    assert [block["text"] for block in one.told("session/prompt")[1]["prompt"]] == ["and 1", "and 2"]


@pytest.mark.slow
async def test_one_that_goes_on_after_its_proper_end_has_succeeded_all_the_same(shared: Client) -> None:
    seen = await talk(shared, [chunk("Done.")]).run(f"{PEER}; exit 3")
    assert (seen.end.state, seen.end.exit_code) == (State.STATE_SUCCEEDED, 3), seen.end


@pytest.mark.slow
@pytest.mark.parametrize(("loads", "late"), [(True, False), (True, True), (False, False)])
async def test_a_later_round_goes_on_in_its_session_if_it_can(
    shared: Client, tmp_path: Path, loads: bool, late: bool
) -> None:
    give_to_agents(tmp_path)
    history = [chunk("Of old.")["update"], tool(title="old", status="completed")["update"]]
    initialize = {"agentCapabilities": {"loadSession": loads}}
    one = talk(shared, [{"run": "touch $HOME/kept"}], initialize=initialize, history=history)
    fields = {"home_path": str(tmp_path), "job_id": new_id("job")}
    await one.run(**fields)
    offers = {"models": {"availableModels": [{"modelId": "m-1"}]}}
    one.write(
        {"turns": [[chunk("Of now.")]], "initialize": initialize, "history": history, "late": late, "session": offers}
    )
    seen = await one.run(**fields, model="m-1", resumes=True)
    assert (seen.end.state, said(seen)) == (State.STATE_SUCCEEDED, "Of now."), seen.end
    assert len(of(seen, "tool_call")) == 0
    loaded = [each["sessionId"] for each in one.told("session/load")]
    assert (loaded, len(one.told("session/new"))) == ((["sess-1"], 1) if loads else ([], 2))
    assert any("2 updates of its history" in note.text for note in of(seen, "note")) == loads
