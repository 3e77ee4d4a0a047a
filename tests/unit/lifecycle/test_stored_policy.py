"""Policies that an earlier version stored: those of jobs, and the layers of the catalogue."""

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.policy import DEFAULT_POLICY, Checkpoints, Policy, complete_policy
from services.lifecycle.model.states import Publish, RetryFrom
from services.lifecycle.model.value import dump, load, pack, unpack

SPEC = {
    "job_id": "job-1",
    "project_id": "default",
    "kind": "task",
    "prompt": "Do it.",
    "task": "Do it.",
    "create_time": "2026-11-29T00:00:00Z",
}
JOB = {
    "verify_command": "make",
    "verify_timeout": "PT5.5S",
    "publish": "NONE",
    "retention": "KEEP_FAILED",
    "checkpoints": ["start", "push"],
    "checkpoint_timeout": "P1D",
    "max_extra_rounds": 5,
    "agent_may_ask": False,
    "max_attempts": 3,
    "retry_on": ["AGENT_FAILED"],
    "retry_from": "SNAPSHOT",
}
RESULTS = {"artifacts": [], "incomplete": "FAIL", "leave_out": [], "git_lfs": True}
NO_BUDGET = {"cost_usd": None, "tokens": None, "requests": None, "allow_unknown_cost": False}
JOBS = {
    "d3fb233": {**JOB, "verify_timeout": 5.5, "checkpoint_timeout": 86400.0},
    "40590b2": JOB,
    "afd5df60": {**JOB, "checkpoints": {"before": ["start", "push"]}},
    "50aaf6e8": {**JOB, "checkpoints": {"before": ["start", "push"]}, **RESULTS},
    "today": {**JOB, "checkpoints": {"before": ["start", "push"]}, **RESULTS, "budget": NO_BUDGET},
}
"""By the commit that wrote them."""
VALUE = complete_policy(
    Policy(
        verify_command="make",
        verify_timeout=timedelta(seconds=5.5),
        publish=Publish.NONE,
        checkpoints=Checkpoints(("start", "push")),
        retry_on=("AGENT_FAILED",),
        retry_from=RetryFrom.SNAPSHOT,
    )
)


@pytest.mark.parametrize("policy", JOBS.values(), ids=JOBS)
def test_a_jobs_policy_is_read_and_written_as_today(policy: dict[str, Any]) -> None:
    spec = load(JobSpec, json.dumps({**SPEC, "policy": policy}))
    assert spec.policy == VALUE
    assert json.loads(dump(spec))["policy"] == JOBS["today"]
    assert unpack(JobSpec, pack(spec)) == spec


def test_what_a_jobs_policy_lacks_has_its_default() -> None:
    assert load(JobSpec, json.dumps(SPEC)).policy == DEFAULT_POLICY
    assert load(JobSpec, json.dumps({**SPEC, "policy": {"max_attempts": 3}})).policy == DEFAULT_POLICY


def test_a_layer_is_read_with_what_it_leaves_open() -> None:
    stored = {
        "verify_command": "",
        "verify_timeout": "PT5.5S",
        "publish": "NONE",
        "checkpoints": {"before": ["push"]},
        "retry_on": [],
    }
    adapter: TypeAdapter[Policy[None]] = TypeAdapter(Policy[None])
    layer: Policy[None] = Policy(
        verify_command="",
        verify_timeout=timedelta(seconds=5.5),
        publish=Publish.NONE,
        checkpoints=Checkpoints(("push",)),
    )
    assert adapter.validate_python(stored) == layer
    assert adapter.dump_python(layer, mode="json", exclude_none=True) == {**stored, "artifacts": [], "leave_out": []}
