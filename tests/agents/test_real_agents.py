"""Each real agent by its name, in a sandbox without a network: it asks a scripted model through the door.

For `make test-agents`, which installs the programs into the directory that BOATYARD_TEST_AGENTS names.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boatyard.agent.v1 import agent_pb2, model_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.ids import new_id
from tests.integration.execution.conftest import directory  # noqa: F401 - a fixture
from tests.integration.execution.service import Client, Seen, State, running
from tests.kit.scripted_model import TOKENS, Model, Script, scripted_model
from tests.kit.uids import give_to_agents

INSTALLED = os.environ.get("BOATYARD_TEST_AGENTS", "")
KEY = "key-of-the-provider"
AGENTS = {
    "aider": ("messages", "claude-sonnet-5-5"),
    "claude": ("messages", "claude-sonnet-5-5"),
    "claude-acp": ("messages", "claude-sonnet-5-5"),
    "codex": ("responses", "gpt-5.5"),
    "codex-acp": ("responses", "gpt-5.5"),
    "gemini": ("gemini", "gemini-3-pro"),
    "gemini-acp": ("gemini", "gemini-3-pro"),
    "mini-swe-agent": ("messages", "claude-sonnet-5-5"),
    "opencode": ("messages", "claude-sonnet-5-5"),
    "opencode-acp": ("messages", "claude-sonnet-5-5"),
}
EDITS_BY_TEXT = {"aider"}
"""Agents that call no tools: what they are to do stands in the model's answer."""
ASKS = {"claude-acp", "gemini-acp", "opencode-acp"}
"""Agents that ask whether they may call a tool, when they are told to."""
BEGINS_ANEW = {"mini-swe-agent"}
"""Agents that cannot go on in an earlier session."""
LOOKS = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline > seen 2>/dev/null; find ~ /tmp -type f -exec cat {} + >> seen"
FIX = "echo fixed > file.txt; cat file.txt"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
SEARCH_AND_REPLACE = "file.txt\n```\n<<<<<<< SEARCH\n=======\nfixed\n>>>>>>> REPLACE\n```\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not INSTALLED, reason="`make test-agents` installs the agents"),
    pytest.mark.parametrize("agent", AGENTS),
]


def script(agent: str, steps: Sequence[str], says: str) -> Script:
    """Return what the model does so that this agent takes these steps, and says this in the end."""
    if agent in EDITS_BY_TEXT:
        return Script([], f"{SEARCH_AND_REPLACE if steps else ''}\n{says}")
    return Script([*steps, SUBMIT] if agent == "mini-swe-agent" else steps, says)


@dataclass
class Agent:
    """One agent of one job, with its HOME."""

    name: str
    client: Client
    model: Model
    home: Path
    job_id: str
    ask_before: Sequence[str] = ()

    async def begin(self, prompt: str, **fields: Any) -> str:
        wire, model_name = AGENTS[self.name]
        fields = {"job_id": self.job_id, "home_path": str(self.home), **fields}
        spec = self.client.service.spec("", prompt=prompt, model=model_name, **fields)
        spec.agent.command.MergeFrom(agent_pb2.CommandEngine(preset=self.name, ask_before=self.ask_before))
        url = self.model.url + ("/v1" if wire == "responses" else "")
        number = model_pb2.ModelWire.Value(f"MODEL_WIRE_{wire.upper()}")
        spec.providers.add(name="scripted", wire=number, base_url=url, keys=[KEY], allowed_addresses=["127.0.0.0/8"])
        name = new_id("run")
        await self.client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=30)
        return name

    async def run(self, prompt: str, **fields: Any) -> Seen:
        return await self.client.watch(await self.begin(prompt, **fields))


@asynccontextmanager
async def working(name: str, directory: Path) -> AsyncIterator[Agent]:  # noqa: F811 - no fixture here
    home = directory / "agents-home"
    home.mkdir(mode=0o700)
    give_to_agents(home)
    with scripted_model(Script([])) as model:
        async with running(directory, AGENT_PATHS=INSTALLED, DISK_RESERVE_BYTES="0") as client:
            yield Agent(name, client, model, home, new_id("job"))


async def test_it_makes_its_fix_and_goes_on_when_changes_are_asked_for(
    agent: str,
    directory: Path,  # noqa: F811 - the fixture
) -> None:
    async with working(agent, directory) as one:
        workspace = one.client.service.workspace
        one.model.script = script(agent, [f"{LOOKS}; {FIX}"], "That was round one.")
        first = await one.run("Fix it.")
        assert (first.end.state, first.end.reason) == (State.STATE_SUCCEEDED, ""), (first.end, first.output[-2000:])
        assert (workspace / "file.txt").read_text() == "fixed\n"
        asked = len(one.model.requests)
        assert first.end.model_use.tokens in {asked * (TOKENS["in"] + TOKENS["out"] + each) for each in (0, 20)}
        one.model.script = script(agent, [], "That was round two.")
        second = await one.run("Fix it.\n\n## Changes that were asked for\n\nMore of it.", resumes=True)
        assert second.end.state == State.STATE_SUCCEEDED, (second.end, second.output[-2000:])
        later = one.model.requests[asked:]  # some ask for a title first
        goes_on = any("That was round one." in json.dumps(request[1]) for request in later)
        assert goes_on == (agent not in BEGINS_ANEW)
        assert second.end.model_use.tokens > 0
    assert one.model.keys
    assert all(KEY in key for key in one.model.keys), "the door adds it"
    everything = [path for path in directory.rglob("*") if path.is_file()]
    assert [path for path in everything if KEY.encode() in path.read_bytes()] == [], "events, logs, databases, HOME"
    assert KEY.encode() not in first.output + second.output
    if agent not in EDITS_BY_TEXT:
        assert b"BOATYARD_EXECUTION_ID" in (workspace / "seen").read_bytes(), "it has looked at itself"


async def test_it_ends_in_the_middle_of_a_tool(agent: str, directory: Path) -> None:  # noqa: F811 - the fixture
    if agent in EDITS_BY_TEXT:
        pytest.skip("it has no tools")
    async with working(agent, directory) as one:
        begun = one.client.service.workspace / "begun"
        one.model.script = script(agent, ["touch begun; tail -f /dev/null"], "Never.")
        name = await one.begin("Fix it.")
        async with asyncio.timeout(120):
            while not begun.exists():
                await asyncio.sleep(0.05)
        await one.client.stop(name, 5)
        end = await one.client.end(name)
    assert (end.state, end.processes_left) == (State.STATE_CANCELLED, 0)


@pytest.mark.parametrize("allow", [True, False])
async def test_it_asks_before_it_runs_anything(agent: str, directory: Path, allow: bool) -> None:  # noqa: F811
    if agent not in ASKS:
        pytest.skip("it asks nobody")
    async with working(agent, directory) as one:
        made = one.client.service.workspace / "file.txt"
        one.model.script = script(agent, [FIX], "That was it.")
        one.ask_before = ["execute"]
        name = await one.begin("Fix it.")
        async with asyncio.timeout(120):
            while not (asked := (await one.client.get(name)).pending_permissions):
                await asyncio.sleep(0.05)
        assert ("echo fixed" in asked[0].input, made.exists()) == (True, False)
        answer = pb.ResolvePermissionRequest(execution_id=name, permission_id=asked[0].permission_id, allow=allow)
        await one.client.stub.ResolvePermission(answer)
        end = await one.client.end(name)
    assert (end.reason, made.exists()) == ("" if allow else "AGENT_FAILED", allow), end
