"""Converts between layers of policies, where anything may be left open, and a job's own policy, where nothing is.

Fields of the same name mean the same. A layer has time spans where a job has seconds. For what a layer leaves open, a
job has the lifecycle's defaults.
"""

from dataclasses import fields
from datetime import timedelta
from typing import Any, Final

from services.gateway.values.policy import Checkpoints, JobPolicySettings
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.job_spec import JobPolicy

_COUNTS_FROM_ZERO: Final = frozenset({"max_extra_rounds", "verify_timeout", "checkpoint_timeout"})
"""Fields for which 0 in a layer means 0; any other field that is 0 or empty is left open."""


def resolve_policy(layer: JobPolicySettings) -> JobPolicy:
    """Return the merged policy of all layers as the lifecycle has it."""
    policy = {}
    for each in fields(layer):
        value = getattr(layer, each.name)
        if value or (value is not None and each.name in _COUNTS_FROM_ZERO):
            policy[each.name] = _policy_value(value)
    return JobPolicy(**policy)


def policy_as_layer(policy: JobPolicy) -> JobPolicySettings:
    """Return a job's policy as one layer, for the conversion to messages."""
    values = {each.name: getattr(policy, each.name) for each in fields(policy)}
    return JobPolicySettings(**{name: _layer_value(name, value) for name, value in values.items()})


def _policy_value(value: Any) -> Any:  # noqa: ANN401 - any field's
    match value:
        case timedelta():
            return value.total_seconds()
        case Checkpoints():
            return tuple(stage for stage in APPROVAL_STAGES if stage in value.before)
        case _:
            return value


def _layer_value(name: str, value: Any) -> Any:  # noqa: ANN401 - any field's
    match name:
        case "verify_command":
            return value or None
        case "checkpoints":
            return Checkpoints(value)
        case "verify_timeout" | "checkpoint_timeout":
            return timedelta(seconds=value)
        case _:
            return value
