"""Each real agent by its name, in a sandbox without a network: it asks a scripted model through the door.

For `make test-agents`, which installs the programs into the directory that BOATYARD_TEST_AGENTS names.
"""

import os
from pathlib import Path

import pytest
from boatyard.agent.v1 import model_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.ids import new_id
from tests.integration.execution.conftest import directory  # noqa: F401 - a fixture
from tests.integration.execution.service import State, running
from tests.kit.scripted_model import Script, scripted_model

INSTALLED = os.environ.get("BOATYARD_TEST_AGENTS", "")
KEY = "key-of-the-provider"
AGENTS = {
    "claude": ("messages", "claude-sonnet-5-5"),
    "codex": ("responses", "gpt-5.5"),
    "gemini": ("gemini", "gemini-3-pro"),
    "opencode": ("messages", "claude-sonnet-5-5"),
    "mini-swe-agent": ("messages", "claude-sonnet-5-5"),
}
STEPS = ["echo fixed > file.txt; cat file.txt"]
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="`make test-agents` installs the agents")
@pytest.mark.parametrize("agent", AGENTS)
async def test_a_real_agent_makes_its_fix(agent: str, directory: Path) -> None:  # noqa: F811 - the fixture
    wire, model_name = AGENTS[agent]
    steps = [*STEPS, SUBMIT] if agent == "mini-swe-agent" else STEPS
    with scripted_model(Script(steps)) as model:
        async with running(directory, AGENT_PATHS=INSTALLED, DISK_RESERVE_BYTES="0") as client:
            spec = client.service.spec("", prompt="Fix it.", model=model_name)
            spec.agent.command.preset = agent
            url = model.url + ("/v1" if wire == "responses" else "")
            number = model_pb2.ModelWire.Value(f"MODEL_WIRE_{wire.upper()}")
            spec.providers.add(name="scripted", wire=number, base_url=url, keys=[KEY])
            name = new_id("run")
            await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=30)
            seen = await client.watch(name)
            made = (client.service.workspace / "file.txt").read_text()
    assert (seen.end.state, seen.end.reason) == (State.STATE_SUCCEEDED, ""), (seen.end, seen.output[-2000:])
    assert made == "fixed\n"
    asked = len(model.requests)
    assert seen.end.model_use.tokens in {asked * 1100, asked * 1120}
    assert all(KEY in key for key in model.keys), "the door adds it"
    assert KEY.encode() not in seen.output
