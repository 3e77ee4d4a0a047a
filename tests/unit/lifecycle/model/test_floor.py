"""Floors: binding settings to one never loosens anything, does so once, and in any order."""

import subprocess
from dataclasses import fields, replace
from datetime import timedelta
from itertools import permutations
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.settings import AgentSettings
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.floor import (
    NO_FLOOR,
    BindingFloor,
    Floor,
    Limits,
    bound_agent,
    bound_policy,
    check_in_words,
    complaints,
    exceeded,
    protected_paths,
    undercut,
)
from services.lifecycle.model.policy import DEFAULT_POLICY, Checkpoints, Policy
from services.lifecycle.model.states import Publish
from services.sandbox.spec import Network, Tier

spans = st.none() | st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=1))
numbers = st.none() | st.integers(1, 100)
amounts = {each.name: spans if each.name.endswith("timeout") else numbers for each in fields(Limits)}
checkpoints = st.sets(st.sampled_from(APPROVAL_STAGES)).map(
    lambda asked: Checkpoints(tuple(stage for stage in APPROVAL_STAGES if stage in asked))
)
floors = st.builds(
    Floor,
    verify_command=st.sampled_from(["", "make lint", "make test"]),
    checkpoints=checkpoints,
    limits=st.builds(Limits, **amounts),
    sandbox_tiers=st.sets(st.sampled_from(Tier)).map(tuple),
    networks=st.sets(st.sampled_from(Network)).map(tuple),
    never_pushed=st.booleans(),
    max_attempts=numbers,
    max_extra_rounds=st.none() | st.integers(0, 50),
)
agents = st.builds(
    AgentSettings,
    sandbox_tier=st.none() | st.sampled_from(Tier),
    network=st.none() | st.sampled_from(Network),
    **amounts,
)
policies = st.builds(
    lambda asked, publish, attempts, rounds: replace(
        DEFAULT_POLICY, checkpoints=asked, publish=publish, max_attempts=attempts, max_extra_rounds=rounds
    ),
    checkpoints,
    st.sampled_from(Publish),
    st.integers(1, 20),
    st.integers(0, 50),
)


def bound(agent: AgentSettings, policy: Policy[Never], *several: Floor) -> tuple[AgentSettings, Policy[Never]]:
    for floor in several:
        agent, policy = bound_agent(agent, floor), bound_policy(policy, floor)
    return agent, replace(policy, verify_command="")


@given(agents, policies, floors)
def test_nothing_is_loosened(agent: AgentSettings, policy: Policy[Never], floor: Floor) -> None:
    tighter, stricter = bound(agent, policy, floor)
    for each in fields(Limits):
        before, after, most = (getattr(one, each.name) for one in (agent, tighter, floor.limits))
        assert after == before if most is None else after <= most and (before is None or after <= before)
    assert {*stricter.checkpoints.before} == {*policy.checkpoints.before, *floor.checkpoints.before}
    assert stricter.publish is Publish.NONE or (policy.publish is Publish.PUSH and not floor.never_pushed)
    assert (tighter.sandbox_tier, tighter.network) == (agent.sandbox_tier, agent.network), "those are refused instead"
    for name in ("max_attempts", "max_extra_rounds"):
        before, after, most = (getattr(one, name) for one in (policy, stricter, floor))
        assert after == (before if most is None else min(before, most))
    assert not [*exceeded(tighter, floor), *undercut(Policy(max_attempts=stricter.max_attempts), floor)]


@given(agents, policies, st.lists(floors, max_size=3))
def test_the_order_of_floors_does_not_matter_and_each_binds_once(
    agent: AgentSettings, policy: Policy[Never], several: list[Floor]
) -> None:
    once = bound(agent, policy, *several)
    assert all(bound(agent, policy, *order) == once for order in permutations(several))
    assert bound(*once, *several) == once


def test_no_floor_wants_nothing() -> None:
    agent = AgentSettings(timeout=timedelta(days=7), sandbox_tier=Tier.NONE, network=Network.OPEN)
    assert (bound_agent(agent, NO_FLOOR), bound_policy(DEFAULT_POLICY, NO_FLOOR)) == (agent, DEFAULT_POLICY)
    assert not [*complaints(agent, NO_FLOOR), *exceeded(agent, NO_FLOOR)]


@pytest.mark.parametrize(
    ("floor", "agent", "complaint"),
    [
        (Floor(sandbox_tiers=(Tier.CONTAINER,)), AgentSettings(), ("sandbox_tier", "must be CONTAINER")),
        (
            Floor(networks=(Network.ALLOW_LIST,)),
            AgentSettings(network=Network.OPEN),
            ("network", "must be NONE or ALLOW_LIST"),
        ),
        (Floor(networks=(Network.ALLOW_LIST,)), AgentSettings(network=Network.NONE), None),
        (Floor(networks=(Network.NONE,)), AgentSettings(), None),
        (Floor(allowed_hosts=("a.org",)), AgentSettings(), None),
        (Floor(allowed_hosts=("*",)), AgentSettings(network=Network.OPEN), ("network", "must be NONE or ALLOW_LIST")),
        (
            Floor(allowed_hosts=("a.org", "*.b.org")),
            AgentSettings(network=Network.ALLOW_LIST),
            ("allowed_hosts", "must be of a.org, *.b.org, not left open"),
        ),
        (
            Floor(allowed_hosts=("a.org", "*.b.org")),
            AgentSettings(network=Network.ALLOW_LIST, allowed_hosts=("A.org.", "x.b.org", "*.y.b.org")),
            None,
        ),
        (
            Floor(allowed_hosts=("a.org", "*.b.org")),
            AgentSettings(network=Network.ALLOW_LIST, allowed_hosts=("a.org", "b.org", "a.org:22", "xb.org")),
            ("allowed_hosts", "must be of a.org, *.b.org, not b.org, a.org:22, xb.org"),
        ),
    ],
)
def test_what_a_floor_does_not_leave_to_choose(floor: Floor, agent: AgentSettings, complaint: Any) -> None:
    assert [*complaints(agent, floor)] == ([complaint] if complaint else [])


def test_only_what_a_layer_sets_itself_is_more_than_a_floor_allows() -> None:
    floor = Floor(max_attempts=2, max_extra_rounds=0)
    assert not [*undercut(Policy(max_attempts=2), floor)]
    assert dict(undercut(Policy(max_attempts=3, max_extra_rounds=1), floor)) == {
        "max_attempts": "must be at most 2",
        "max_extra_rounds": "must be at most 0",
    }


def test_only_what_is_asked_for_exceeds_a_limit() -> None:
    floor = Floor(limits=Limits(timeout=timedelta(minutes=10), processes=5))
    assert not [*exceeded(AgentSettings(processes=5), floor)]
    asked = AgentSettings(timeout=timedelta(hours=1), processes=6)
    assert dict(exceeded(asked, floor)) == {"timeout": "must be at most 600 s", "processes": "must be at most 5"}


@pytest.mark.parametrize(
    ("first", "own", "passes"),
    [
        ("true", "true", True),
        ("true", "false", False),
        ("false", "true", False),
        ("false", "true || true; true", False),
        ("false", "} ; true #", False),
        ("false", "'; true; '", False),
        ('echo "it\'s" && exit 3', "exit 0", False),
        ("exit 0", "false\nexit 1", False),
        ("cd / # a comment", 'test "$PWD" != /', True),
    ],
)
def test_the_floors_command_runs_first_whatever_the_jobs_own_says(first: str, own: str, passes: bool) -> None:
    line = bound_policy(replace(DEFAULT_POLICY, verify_command=own), Floor(verify_command=first)).verify_command
    run = subprocess.run(["/bin/sh", "-c", line], capture_output=True, cwd="/usr", check=False)
    assert (run.returncode == 0) is passes


def test_a_command_that_is_alone_is_as_it_was_written() -> None:
    assert bound_policy(DEFAULT_POLICY, Floor(verify_command="make lint")).verify_command == "make lint"


def test_protected_paths_are_those_of_all_floors() -> None:
    both = [BindingFloor(name, Floor(protected_paths=(name, "shared"))) for name in ("a", "b")]
    assert protected_paths(both) == ("a", "shared", "b")


@given(floors=st.lists(floors, max_size=3), own=st.sampled_from(["", "make docs"]))
def test_who_wants_a_check_is_said(floors: list[Floor], own: str) -> None:
    binding = [BindingFloor(f"project/{number}", floor) for number, floor in enumerate(floors)]
    policy = replace(DEFAULT_POLICY, verify_command=own)
    for each in reversed(floors):
        policy = bound_policy(policy, each)
    words = check_in_words(policy.verify_command, binding)
    having = [each for each in binding if each.floor.verify_command]
    assert [each.set_by in words for each in binding] == [each in having for each in binding]
    assert ("with" in words) == (len(having) + bool(own) > 1 and bool(having))
    assert (words == "the check") == (not having)
