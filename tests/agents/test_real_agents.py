"""Each real agent by its name, in a sandbox without a network: it asks a scripted model through the door.

What it asked is recorded, and replayed with no model: the same files come of it.

For `make test-agents`, which installs the programs into the directory that BOATYARD_TEST_AGENTS names.
"""

import os
import shutil
from pathlib import Path

import pytest
from boatyard.agent.v1 import model_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.agent.recordings import packed
from services.common.ids import new_id
from tests.integration.execution.conftest import directory  # noqa: F401 - a fixture
from tests.integration.execution.model import of
from tests.integration.execution.service import Client, Seen, State, running
from tests.integration.execution.test_replay import recording_of
from tests.kit.scripted_model import Script, scripted_model

INSTALLED = os.environ.get("BOATYARD_TEST_AGENTS", "")
KEY = "key-of-the-provider"
AGENTS = {
    "claude": ("messages", "claude-sonnet-5-5"),
    "codex": ("responses", "gpt-5.5"),
    "gemini": ("gemini", "gemini-3-pro"),
    "opencode": ("messages", "claude-sonnet-5-5"),
    "mini-swe-agent": ("messages", "claude-sonnet-5-5"),
    "aider": ("messages", "claude-sonnet-5-5"),
}
STEPS = ["echo fixed > file.txt; cat file.txt"]
SCRIPTS = {"aider": Script([], says="file.txt\n```\n<<<<<<< SEARCH\n=======\nfixed\n>>>>>>> REPLACE\n```\n")}
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


async def run(client: Client, spec: pb.ExecutionSpec) -> tuple[str, Seen]:
    """Run an agent in an empty workspace."""
    for path in client.service.workspace.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    name = new_id("run")
    await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=30)
    return name, await client.watch(name)


def files(workspace: Path) -> dict[str, bytes]:
    """Return the results: what an agent keeps for itself has a dot before its name."""
    return {path.name: path.read_bytes() for path in workspace.iterdir() if path.name[0] != "." and path.is_file()}


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="`make test-agents` installs the agents")
@pytest.mark.parametrize("agent", AGENTS)
async def test_a_real_agent_makes_its_fix_and_makes_it_again_by_its_recording(
    agent: str,
    directory: Path,  # noqa: F811 - the fixture
) -> None:
    wire, model_name = AGENTS[agent]
    steps = [*STEPS, SUBMIT] if agent == "mini-swe-agent" else STEPS
    async with running(directory, AGENT_PATHS=INSTALLED, DISK_RESERVE_BYTES="0") as client:
        spec = client.service.spec("", prompt="Fix it.", model=model_name, record=True)
        spec.agent.command.preset = agent
        with scripted_model(SCRIPTS.get(agent, Script(steps))) as model:
            url = model.url + ("/v1" if wire in {"responses", "chat"} else "")
            number = model_pb2.ModelWire.Value(f"MODEL_WIRE_{wire.upper()}")
            spec.providers.add(
                name="scripted", wire=number, base_url=url, keys=[KEY], allowed_addresses=["127.0.0.1/32"]
            )
            name, seen = await run(client, spec)
        made = files(client.service.workspace)
        tape = await recording_of(client, name)
        del spec.providers[:]
        spec.replay.recording = packed(tape)
        _, again = await run(client, spec)
        made_again = files(client.service.workspace)
    assert (seen.end.state, seen.end.reason) == (State.STATE_SUCCEEDED, ""), (seen.end, seen.output[-2000:])
    assert (made["file.txt"], again.end.state, made_again) == (b"fixed\n", State.STATE_SUCCEEDED, made), (
        again.end,
        again.output[-2000:],
        of(again, "note"),
    )
    assert (again.end.model_use.tokens, again.end.model_use.cost_usd) == (seen.end.model_use.tokens, 0)
    assert KEY.encode() not in tape
    asked = len(model.requests)
    assert seen.end.model_use.tokens in {asked * 1100, asked * 1120}
    assert all(KEY in key for key in model.keys), "the door adds it"
    assert KEY.encode() not in seen.output
