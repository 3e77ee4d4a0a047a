"""Layers as a job's settings and back: nothing that a layer sets is lost, and what it leaves open gets a default."""

from dataclasses import fields
from datetime import timedelta

import pytest

from services.gateway.jobs.layers import agent_as_layer, policy_as_layer, resolve_agent, resolve_policy
from services.gateway.values import agent as layers
from services.lifecycle.model.job_spec import AgentSpec, JobPolicy, Limits
from services.lifecycle.model.states import PromptDelivery, Publish, Retention, RetryFrom
from services.sandbox.spec import Network, Tier

AGENT = layers.AgentSettings(
    engine="anthropic",
    command="true",
    prompt_delivery=PromptDelivery.ARGUMENT,
    system_prompt="Be brief.",
    model="a-model",
    environment={"A": "b"},
    timeout=timedelta(seconds=90),
    idle_timeout=timedelta(seconds=1.5),
    sandbox_tier=layers.SandboxTier.CONTAINER,
    network=layers.Network.ALLOW_LIST,
    max_turns=1,
    max_tokens=2,
    token_budget=3,
    memory_bytes=4,
    processes=5,
    disk_bytes=6,
    output_bytes=7,
    cpu_seconds=8,
    terminal=True,
    ask_before=("bash",),
    allowed_hosts=("example.com",),
    image="an-image",
)
POLICY = layers.JobPolicySettings(
    verify_command="make test",
    verify_timeout=timedelta(seconds=5),
    publish=Publish.NONE,
    retention=Retention.KEEP,
    checkpoints=layers.Checkpoints(("push",)),
    checkpoint_timeout=timedelta(hours=1),
    max_extra_rounds=2,
    agent_may_ask=True,
    max_attempts=4,
    retry_on=("NODE_LOST",),
    retry_from=RetryFrom.SNAPSHOT,
)


def test_what_a_layer_sets_a_job_has() -> None:
    assert resolve_agent(AGENT) == AgentSpec(
        engine="anthropic",
        command="true",
        prompt_delivery=PromptDelivery.ARGUMENT,
        system_prompt="Be brief.",
        model="a-model",
        environment={"A": "b"},
        timeout=90.0,
        idle_timeout=1.5,
        sandbox_tier=Tier.CONTAINER,
        network=Network.ALLOW_LIST,
        max_turns=1,
        max_tokens=2,
        token_budget=3,
        limits=Limits(memory_bytes=4, processes=5, disk_bytes=6, output_bytes=7, cpu_seconds=8),
        terminal=True,
        ask_before=("bash",),
        allowed_hosts=("example.com",),
        image="an-image",
    )
    assert resolve_policy(POLICY) == JobPolicy(
        verify_command="make test",
        verify_timeout=5.0,
        publish=Publish.NONE,
        retention=Retention.KEEP,
        checkpoints=("push",),
        checkpoint_timeout=3600.0,
        max_extra_rounds=2,
        agent_may_ask=True,
        max_attempts=4,
        retry_on=("NODE_LOST",),
        retry_from=RetryFrom.SNAPSHOT,
    )


def test_a_job_as_a_layer_is_what_it_was() -> None:
    assert agent_as_layer(resolve_agent(AGENT)) == AGENT
    assert policy_as_layer(resolve_policy(POLICY)) == POLICY


def test_what_a_layer_leaves_open_has_the_lifecycles_defaults() -> None:
    hidden = layers.AgentSettings(command="", system_prompt="", model="", image="", terminal=False)
    assert resolve_agent(layers.AgentSettings()) == resolve_agent(hidden) == AgentSpec()
    assert resolve_policy(layers.JobPolicySettings()) == JobPolicy()
    assert resolve_policy(layers.JobPolicySettings(verify_command="", agent_may_ask=False)) == JobPolicy()


def test_no_further_rounds_and_no_checkpoints_are_said_by_a_layer() -> None:
    none = resolve_policy(layers.JobPolicySettings(max_extra_rounds=0, checkpoints=layers.Checkpoints()))
    assert none == JobPolicy(max_extra_rounds=0, checkpoints=())
    assert policy_as_layer(none).max_extra_rounds == 0


def test_of_a_job_that_decides_nothing_a_layer_shows_the_defaults() -> None:
    assert agent_as_layer(AgentSpec()) == layers.AgentSettings(
        engine="command",
        command="",
        prompt_delivery=PromptDelivery.STDIN,
        timeout=timedelta(hours=1),
        sandbox_tier=layers.SandboxTier.BUBBLEWRAP,
        network=layers.Network.NONE,
    )
    assert policy_as_layer(JobPolicy()).agent_may_ask is False


@pytest.mark.parametrize(
    ("layer", "example"), [(layers.AgentSettings, AGENT), (layers.JobPolicySettings, POLICY)], ids=["agent", "policy"]
)
def test_no_field_is_forgotten(layer: type, example: layers.AgentSettings | layers.JobPolicySettings) -> None:
    """A new field must be in the examples above, which then show what becomes of it."""
    assert [each.name for each in fields(layer) if getattr(example, each.name) in (None, (), {})] == []
