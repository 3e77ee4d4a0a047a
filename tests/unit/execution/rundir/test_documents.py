"""Runners and services of different versions meet: fields that one of them does not know do no harm."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.execution.model import Bounds, EndVerification, Plan, Reason, Result, State, Vitals
from services.execution.rundir.documents import (
    FORMAT,
    NewerFormatError,
    plan_from_json,
    plan_to_json,
    result_from_json,
    result_to_json,
)
from services.sandbox.spec import Container, SandboxSpec, Tier

PLAN = Plan("run", "command", SandboxSpec((b"true",), Path("/workspace")), Bounds(60.0, None, 1000))
RESULT = Result(
    *(State.FAILED, Reason.CPU_LIMIT, "busy", None, 9, 0, 1, 2, 3, 4),
    end_verified_by=EndVerification.CGROUP,
    vitals=Vitals(1.5, 0, 4096, 0, None, 7),
)


def test_they_come_back_as_they_were() -> None:
    assert plan_from_json(plan_to_json(PLAN)) == PLAN
    contained = replace(
        PLAN, sandbox=replace(PLAN.sandbox, tier=Tier.CONTAINER, container=Container("app:1", "podman"))
    )
    assert plan_from_json(plan_to_json(contained)) == contained
    assert result_from_json(result_to_json(RESULT)) == RESULT


def test_what_a_later_version_added_is_left_out() -> None:
    plan = plan_to_json(PLAN)
    plan["colour"] = "blue"
    plan["bounds"] = {**plan["bounds"], "gpu_seconds": 7}
    assert plan_from_json(plan) == PLAN
    result = result_to_json(RESULT)
    result |= {"format": FORMAT + 1, "colour": "blue", "vitals": {**result["vitals"], "gpu_seconds": 7}}
    assert result_from_json(result) == RESULT
    assert result_from_json(result | {"end_verified_by": "SATELLITE"}).end_verified_by is None


def test_what_an_earlier_version_did_not_know_is_filled_up() -> None:
    plan = plan_to_json(PLAN)
    for field in ("format", "engine", "secret_names"):
        del plan[field]
    plan["bounds"] = {"wall_timeout_s": 60.0, "idle_timeout_s": None, "max_output_bytes": 1000}
    assert plan_from_json(plan) == PLAN
    result = result_to_json(RESULT)
    for field in ("format", "end_verified_by", "vitals", "model_use"):
        del result[field]
    read = result_from_json(result)
    assert (read.state, read.reason, read.vitals, read.end_verified_by) == (State.FAILED, "CPU_LIMIT", None, None)


def test_the_engine_of_a_plan_of_an_earlier_version_shows_by_its_task() -> None:
    task = {"model": "m", "prompt": "Do it."}
    plan = plan_to_json(replace(PLAN, engine="anthropic", task=task))
    del plan["engine"]
    assert plan_from_json(plan, task) == replace(PLAN, engine="anthropic", task=task)


def test_a_plan_that_means_something_else_is_refused_with_what_to_do() -> None:
    with pytest.raises(NewerFormatError, match="Start the service again"):
        plan_from_json(plan_to_json(PLAN) | {"format": FORMAT + 1})
