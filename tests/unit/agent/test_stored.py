"""Settings that an earlier version stored: flat ones of the catalogue, and those of jobs."""

import json
from datetime import timedelta

import pytest
from pydantic import TypeAdapter

from services.agent.settings import AgentSettings, AnthropicEngine, CommandEngine, PromptDelivery
from services.agent.stored import StoredAgentSettings
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.policy import Checkpoints, Policy, complete_policy
from services.lifecycle.model.value import dump, load
from services.sandbox.spec import Network, Tier

# As commit d3fb233 wrote them.
LAYERS = [
    ({"environment": {}, "ask_before": [], "allowed_hosts": []}, AgentSettings()),
    (
        {
            "command": "make it so",
            "prompt_delivery": "ARGUMENT",
            "environment": {"A": "1"},
            "timeout": "PT1M30S",
            "sandbox_tier": "NONE",
            "network": "ALLOW_LIST",
            "memory_bytes": 5,
            "terminal": True,
            "ask_before": [],
            "allowed_hosts": ["example.com"],
            "image": "",
        },
        AgentSettings(
            engine=CommandEngine(line="make it so", prompt_delivery=PromptDelivery.ARGUMENT, terminal=True),
            environment={"A": "1"},
            timeout=timedelta(seconds=90),
            sandbox_tier=Tier.NONE,
            network=Network.ALLOW_LIST,
            memory_bytes=5,
            allowed_hosts=("example.com",),
            image="",
        ),
    ),
    (
        {"engine": "anthropic", "command": "unused", "max_tokens": 7, "max_turns": 3, "ask_before": ["bash"]},
        AgentSettings(engine=AnthropicEngine(max_tokens=7, ask_before=("bash",)), max_turns=3),
    ),
    ({"engine": "anthropic", "ask_before": []}, AgentSettings(engine=AnthropicEngine())),
    ({"ask_before": ["bash"]}, AgentSettings(engine=AnthropicEngine(ask_before=("bash",)))),
    ({"command": ""}, AgentSettings(engine=CommandEngine(line=""))),
]
JOB = {
    "job_id": "job-1",
    "project_id": "default",
    "kind": "task",
    "prompt": "Do it.",
    "task": "Do it.",
    "create_time": "2026-11-29T00:00:00Z",
    "revision": "bWFpbg==",
    "policy": {"verify_timeout": 5.5, "checkpoint_timeout": 86400.0, "checkpoints": ["push"]},
    "agent": {
        "engine": "anthropic",
        "command": "python3 agent.py",
        "prompt_delivery": "STDIN",
        "system_prompt": "",
        "model": "m",
        "environment": {"A": "b"},
        "timeout": 3600.0,
        "idle_timeout": None,
        "sandbox_tier": "container",
        "network": "none",
        "max_turns": None,
        "max_tokens": 2,
        "token_budget": 3,
        "limits": {
            "memory_bytes": 4,
            "processes": None,
            "disk_bytes": None,
            "output_bytes": None,
            "cpu_seconds": None,
        },
        "terminal": False,
        "ask_before": ["bash"],
        "allowed_hosts": [],
        "image": "i",
    },
}


@pytest.mark.parametrize(("stored", "value"), LAYERS)
def test_a_layer_of_before_is_read(stored: dict[str, object], value: AgentSettings) -> None:
    adapter: TypeAdapter[AgentSettings] = TypeAdapter(StoredAgentSettings)
    assert adapter.validate_python(stored) == value


def test_a_job_of_before_is_read_and_written_as_today() -> None:
    spec = load(JobSpec, json.dumps(JOB))
    assert spec.agent == AgentSettings(
        engine=AnthropicEngine(max_tokens=2, ask_before=("bash",)),
        model="m",
        environment={"A": "b"},
        timeout=timedelta(hours=1),
        sandbox_tier=Tier.CONTAINER,
        network=Network.NONE,
        token_budget=3,
        memory_bytes=4,
        image="i",
    )
    assert spec.policy == complete_policy(
        Policy(verify_timeout=timedelta(seconds=5.5), checkpoints=Checkpoints(("push",)))
    )
    assert load(JobSpec, dump(spec)) == spec
    assert json.loads(dump(spec))["agent"]["engine"]["name"] == "anthropic"
