"""Layers of settings: set fields win, unset ones inherit, maps are merged; messages keep them all."""

from datetime import timedelta

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2
from boatyard.gateway.v1 import agent_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from services.gateway.catalog.agent_wire import agent_from_proto, agent_to_proto, policy_from_proto, policy_to_proto

from services.agent.settings import AgentSettings, PromptDelivery, overlay
from services.common.errors import Invalid
from services.gateway.values.policy import DEFAULT_POLICY, Checkpoints, JobPolicySettings
from services.gateway.wire.validation import Validator
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.states import Publish, Retention, RetryFrom
from services.sandbox.spec import Network, Tier

texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
spans = st.none() | st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=1))
variables = st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)
agents = st.builds(
    AgentSettings,
    engine=st.none() | st.just("command"),
    command=texts,
    prompt_delivery=st.none() | st.sampled_from(PromptDelivery),
    system_prompt=texts,
    model=st.none() | st.from_regex(r"[a-z0-9.-]{0,10}", fullmatch=True),
    environment=st.dictionaries(variables, st.text("a=\n é", max_size=5), max_size=4),
    timeout=spans,
    idle_timeout=spans,
    sandbox_tier=st.none() | st.sampled_from(SandboxTier),
    image=st.none() | st.from_regex(r"[a-z0-9.:/-]{0,10}", fullmatch=True),
    network=st.none() | st.sampled_from(Network),
)


def in_order(stages: set[str]) -> Checkpoints:
    return Checkpoints(tuple(stage for stage in APPROVAL_STAGES if stage in stages))


policies = st.builds(
    JobPolicySettings,
    verify_command=texts,
    verify_timeout=spans,
    publish=st.none() | st.sampled_from(Publish),
    retention=st.none() | st.sampled_from(Retention),
    max_attempts=st.none() | st.integers(1, 20),
    retry_on=st.lists(st.from_regex(r"X[A-Z_]{0,5}", fullmatch=True), max_size=3).map(tuple),
    retry_from=st.none() | st.sampled_from(RetryFrom),
    checkpoints=st.none() | st.sets(st.sampled_from(APPROVAL_STAGES)).map(in_order),
    checkpoint_timeout=st.none() | st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=30)),
    max_extra_rounds=st.none() | st.integers(0, 50),
    agent_may_ask=st.none() | st.booleans(),
)


def read_agent(message: pb.AgentSettings) -> AgentSettings:
    with Validator() as check:
        return agent_from_proto(check, "agent", message)


def read_policy(message: pb.Policy) -> JobPolicySettings:
    with Validator() as check:
        return policy_from_proto(check, "policy", message)


def test_what_is_set_wins_and_what_is_not_inherits():
    template = AgentSettings(command="one", timeout=timedelta(seconds=5), environment={"A": "1", "B": "1"})
    worker = AgentSettings(command="two", environment={"B": "2", "C": "2"})
    both = overlay(overlay(DEFAULT_AGENT, template), worker)
    assert both == AgentSettings(
        engine="command",
        command="two",
        prompt_delivery=PromptDelivery.STDIN,
        environment={"A": "1", "B": "2", "C": "2"},
        timeout=timedelta(seconds=5),
        sandbox_tier=Tier.BUBBLEWRAP,
        network=Network.NONE,
    )
    policy = overlay(
        overlay(DEFAULT_POLICY, JobPolicySettings(verify_command="make test")), JobPolicySettings(verify_command="")
    )
    assert policy.verify_command == "", "set and empty hides what is below"
    assert policy.publish is Publish.PUSH
    with_checkpoint = overlay(policy, JobPolicySettings(checkpoints=Checkpoints(("push",))))
    assert overlay(with_checkpoint, JobPolicySettings()).checkpoints == Checkpoints(("push",))
    assert overlay(with_checkpoint, JobPolicySettings(checkpoints=Checkpoints())).checkpoints == Checkpoints(), (
        "nobody is asked"
    )


@given(agents, agents, agents)
def test_layers_may_be_merged_in_any_grouping(one, two, three):
    assert overlay(overlay(one, two), three) == overlay(one, overlay(two, three))
    assert overlay(one, AgentSettings()) == one
    assert overlay(AgentSettings(), one) == one


@given(agents, policies)
def test_nothing_is_lost_on_the_wire_or_in_the_database(agent, policy):
    sent = pb.AgentSettings.FromString(agent_to_proto(agent).SerializeToString())
    assert read_agent(sent) == agent
    assert read_policy(pb.Policy.FromString(policy_to_proto(policy).SerializeToString())) == policy
    column = TypeAdapter(AgentSettings)
    assert column.validate_python(column.dump_python(agent, mode="json", exclude_none=True)) == agent


def test_an_unspecified_choice_that_is_set_is_the_default():
    message = pb.AgentSettings(
        prompt_delivery=execution_pb2.CommandEngine.PROMPT_DELIVERY_UNSPECIFIED,
        sandbox_tier=sandbox_pb2.SANDBOX_TIER_UNSPECIFIED,
        network=sandbox_pb2.NETWORK_UNSPECIFIED,
    )
    assert read_agent(message) == AgentSettings(
        prompt_delivery=PromptDelivery.STDIN, sandbox_tier=Tier.BUBBLEWRAP, network=Network.NONE
    )
    assert read_policy(pb.Policy(publish=pb.Policy.PUBLISH_UNSPECIFIED)).publish is Publish.PUSH
    assert agent_to_proto(read_agent(message)).sandbox_tier == sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (pb.AgentSettings(engine=""), {"agent.engine"}),
        (pb.AgentSettings(engine="telepathy"), {"agent.engine"}),
        (pb.AgentSettings(command="x" * 65537, system_prompt="\0"), {"agent.command", "agent.system_prompt"}),
        (pb.AgentSettings(timeout=Duration()), {"agent.timeout"}),
        (pb.AgentSettings(timeout=Duration(nanos=999)), {"agent.timeout"}),
        (pb.AgentSettings(timeout=Duration(seconds=7 * 86400, nanos=1000)), {"agent.timeout"}),
        (pb.AgentSettings(idle_timeout=Duration(seconds=-(2**63))), {"agent.idle_timeout"}),
        (pb.AgentSettings(sandbox_tier=99, network=99), {"agent.sandbox_tier", "agent.network"}),
        (pb.AgentSettings(environment={"1A": "", "A=B": ""}), {"agent.environment"}),
        (pb.AgentSettings(environment={f"A{n}": "" for n in range(129)}), {"agent.environment"}),
        (pb.AgentSettings(environment={"A": "x" * 65536}), {"agent.environment"}),
        (pb.AgentSettings(environment={"A": "\0"}), {"agent.environment['A']"}),
    ],
)
def test_all_that_is_wrong_is_named(message, fields):
    with pytest.raises(Invalid) as caught:
        read_agent(message)
    assert {field for field, _ in caught.value.violations} == fields


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Policy(checkpoints=pb.Checkpoints(before=["push", "lunch"])), "policy.checkpoints.before"),
        (pb.Policy(checkpoint_timeout=Duration(nanos=999_999_000)), "policy.checkpoint_timeout"),
        (pb.Policy(checkpoint_timeout=Duration(seconds=30 * 86400 + 1)), "policy.checkpoint_timeout"),
        (pb.Policy(max_extra_rounds=-1), "policy.max_extra_rounds"),
        (pb.Policy(max_extra_rounds=51), "policy.max_extra_rounds"),
    ],
)
def test_what_is_wrong_with_asking_people_is_named(message, field):
    with pytest.raises(Invalid) as caught:
        read_policy(message)
    assert [name for name, _ in caught.value.violations] == [field]
