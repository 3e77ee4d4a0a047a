"""Policies between messages, values and jobs, and what is wrong with one."""

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from boatyard.gateway.v1 import catalog_pb2, floor_pb2
from boatyard.gateway.v1 import policy_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from services.agent.settings import overlay
from services.common.rpc.rules import Rules
from services.gateway.wire.policy import CHECKS, POLICY
from services.lifecycle.model.budgets import BudgetLimits
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.policy import DEFAULT_POLICY, Checkpoints, Policy, complete_policy
from services.lifecycle.model.states import Incomplete, Publish, Retention, RetryFrom

BLANK = ("", " ", "\t\n", "\u3000\u00a0")
texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
spans = st.none() | st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=1))
policies = st.builds(
    Policy,
    verify_command=texts.filter(lambda text: text is None or (text.isprintable() and bool(text.strip()))),
    verify_timeout=spans,
    publish=st.none() | st.sampled_from(Publish),
    retention=st.none() | st.sampled_from(Retention),
    max_attempts=st.none() | st.integers(1, 20),
    retry_on=st.lists(st.from_regex(r"X[A-Z_]{0,5}", fullmatch=True), max_size=3).map(tuple),
    retry_from=st.none() | st.sampled_from(RetryFrom),
    checkpoints=st.none() | st.sets(st.sampled_from(APPROVAL_STAGES)).map(tuple).map(Checkpoints),
    checkpoint_timeout=spans,
    max_extra_rounds=st.none() | st.integers(0, 50),
    agent_may_ask=st.none() | st.booleans(),
    incomplete=st.none() | st.sampled_from(Incomplete),
    git_lfs=st.none() | st.booleans(),
)


POLICY_OF_ALL: Policy[None] = Policy(
    verify_command="make test",
    verify_timeout=timedelta(seconds=5),
    publish=Publish.NONE,
    retention=Retention.KEEP,
    checkpoints=Checkpoints(("push", "base", "push")),
    checkpoint_timeout=timedelta(hours=1),
    max_extra_rounds=2,
    agent_may_ask=True,
    max_attempts=4,
    retry_on=("NODE_LOST",),
    retry_from=RetryFrom.SNAPSHOT,
    incomplete=Incomplete.ACCEPT,
    artifacts=("build/**",),
    leave_out=(".aider*",),
    git_lfs=False,
    budget=BudgetLimits(cost_usd=2.5, requests=40),
)


def test_a_command_or_a_list_that_is_set_but_empty_hides_what_is_below() -> None:
    below = Policy(verify_command="make", checkpoints=Checkpoints(("push",)), publish=Publish.NONE)
    over = overlay(below, Policy(verify_command="", checkpoints=Checkpoints()))
    assert (over.verify_command, over.checkpoints, over.publish) == ("", Checkpoints(), Publish.NONE)


def test_what_layers_set_a_job_has_and_shows() -> None:
    policy = complete_policy(POLICY_OF_ALL)
    assert policy == replace(POLICY_OF_ALL, checkpoints=Checkpoints(("base", "push")))
    shown = POLICY.from_proto(POLICY.to_proto(policy))
    assert shown == policy
    assert [each.name for each in fields(shown) if getattr(shown, each.name) in (None, ())] == [], "all are tried"


def test_what_layers_leave_open_has_its_default() -> None:
    assert complete_policy(Policy()) == DEFAULT_POLICY
    empty = {"artifacts", "leave_out"}  # lists whose default is nothing
    assert {each.name for each in fields(Policy) if getattr(DEFAULT_POLICY, each.name) in (None, ())} == empty
    assert complete_policy(Policy(verify_command="", agent_may_ask=False)) == DEFAULT_POLICY
    none = complete_policy(Policy(max_extra_rounds=0, checkpoints=Checkpoints()))
    assert none == replace(DEFAULT_POLICY, max_extra_rounds=0)


@given(policies)
def test_nothing_is_lost_on_the_wire(policy: Policy[None]) -> None:
    message = pb.Policy.FromString(POLICY.to_proto(policy).SerializeToString())
    assert POLICY.from_proto(message) == policy
    assert Rules(CHECKS).violations(message) == []


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Policy(verify_command="make\0"), "verify_command"),
        *((pb.Policy(verify_command=blank), "verify_command") for blank in BLANK),
        *((floor_pb2.Floor(verify_command=blank), "verify_command") for blank in BLANK if blank),
        (pb.Policy(verify_timeout=Duration(seconds=86401)), "verify_timeout"),
        (pb.Policy(publish=9), "publish"),
        (pb.Policy(retention=9), "retention"),
        (pb.Policy(checkpoints=pb.Checkpoints(before=["push", "lunch"])), "checkpoints.before[1]"),
        (pb.Policy(checkpoint_timeout=Duration(nanos=999_999_000)), "checkpoint_timeout"),
        (pb.Policy(checkpoint_timeout=Duration(seconds=30 * 86400 + 1)), "checkpoint_timeout"),
        (pb.Policy(max_extra_rounds=-1), "max_extra_rounds"),
        (pb.Policy(max_extra_rounds=51), "max_extra_rounds"),
        (pb.Policy(max_attempts=21), "max_attempts"),
        (pb.Policy(retry_on=["AGENT_FAILED", "agent failed"]), "retry_on[1]"),
        (pb.Policy(retry_on=["AGENT_FAILED", "CANCELLED"]), "retry_on[1]"),
    ],
)
def test_what_is_wrong_is_named(message: pb.Policy, field: str) -> None:
    assert [name for name, _ in Rules(CHECKS).violations(message)] == [field]


def test_no_check_has_a_token_that_everyone_may_read() -> None:
    command = f"curl -H 'Authorization: Bearer ghp_{'a1B2' * 9}' https://ci.example"
    project = catalog_pb2.Project(display_name="Docs", floor=floor_pb2.Floor(verify_command=command))
    for message, field in ((pb.Policy(verify_command=command), "verify_command"), (project, "floor.verify_command")):
        violations = dict(Rules(CHECKS).violations(message))
        assert list(violations) == [field]
        assert "checks get no secrets" in violations[field]
