"""Layers as a job's settings and back: nothing that a layer sets is lost, and what it leaves open gets a default."""

from dataclasses import fields
from datetime import timedelta

from services.gateway.jobs.layers import policy_as_layer, resolve_policy
from services.gateway.values import policy as layers
from services.lifecycle.model.job_spec import JobPolicy
from services.lifecycle.model.states import Publish, Retention, RetryFrom

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
    assert policy_as_layer(resolve_policy(POLICY)) == POLICY


def test_what_a_layer_leaves_open_has_the_lifecycles_defaults() -> None:
    assert resolve_policy(layers.JobPolicySettings()) == JobPolicy()
    assert resolve_policy(layers.JobPolicySettings(verify_command="", agent_may_ask=False)) == JobPolicy()


def test_no_further_rounds_and_no_checkpoints_are_said_by_a_layer() -> None:
    none = resolve_policy(layers.JobPolicySettings(max_extra_rounds=0, checkpoints=layers.Checkpoints()))
    assert none == JobPolicy(max_extra_rounds=0, checkpoints=())
    assert policy_as_layer(none).max_extra_rounds == 0


def test_of_a_job_that_decides_nothing_a_layer_shows_the_defaults() -> None:
    assert policy_as_layer(JobPolicy()).agent_may_ask is False


def test_no_field_is_forgotten() -> None:
    """A new field must be in the example above, which then shows what becomes of it."""
    assert [each.name for each in fields(POLICY) if getattr(POLICY, each.name) in (None, (), {})] == []
