"""Agents that are spoken to, and ask for what they may not do: under other names, without end, and after the end."""

import asyncio
import json

import pytest

from tests.integration.execution.conversations import talk
from tests.integration.execution.model import of
from tests.integration.execution.service import Client, State
from tests.integration.execution.test_conversations import ASKED, tool


@pytest.mark.slow
async def test_what_may_be_refused_is_not_allowed_under_another_name(shared: Client) -> None:
    """A kind that nobody knows is `other`, and a call that uses the id of one that is over is not that call."""
    read = {"toolCallId": "t1", "kind": "read", "rawInput": {"path": "a"}}
    calls = [
        {"toolCallId": "t0", "kind": "EXECUTE", "title": "ls"},
        {"toolCallId": "t1", "title": "ls"},
        {"toolCallId": "", "kind": "read"},
        {"toolCallId": "", "title": "ls"},
    ]
    asked = [{"ask": {**ASKED, "toolCall": call}} for call in calls]
    one = talk(shared, [tool("tool_call", status="completed", **read), *asked])
    await one.run(refuse=["execute", "other"])
    chosen = [each["outcome"]["optionId"] for each in one.outcomes]
    assert chosen == ["reject_once", "reject_once", "allow_once", "reject_once"]


@pytest.mark.slow
async def test_questions_without_end_are_asked_of_nobody(shared: Client) -> None:
    ask = {"jsonrpc": "2.0", "method": "session/request_permission", "params": ASKED}
    many = "".join(json.dumps({**ask, "id": f"a{number}"}) + "\n" for number in range(300))
    one = talk(shared, [{"write": many}, {"until": "cancel"}])
    name = await one.begin(ask_before=["execute"])
    async with asyncio.timeout(30):
        while len([each for each in one.heard if "result" in each]) < 300 - 64:
            await asyncio.sleep(0.05)
    assert len((await shared.get(name)).pending_permissions) == 64
    await shared.stop(name, 60)


@pytest.mark.slow
async def test_a_question_after_the_end_is_asked_of_nobody(shared: Client) -> None:
    ask = {"jsonrpc": "2.0", "id": "late", "method": "session/request_permission", "params": ASKED}
    end = {"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}}
    seen = await talk(shared, [{"write": f"{json.dumps(end)}\n{json.dumps(ask)}\n"}]).run(ask_before=["execute"])
    assert (seen.end.state, of(seen, "permission_request")) == (State.STATE_SUCCEEDED, []), seen.end
