"""Converts between layers of settings, where anything may be left open, and a job's own settings, where nothing is.

Fields of the same name mean the same. A layer has time spans and the contract's enums where a job has seconds and the
sandbox's enums. For what a layer leaves open, a job has the lifecycle's defaults.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any, Final

from services.gateway.values import agent as layers
from services.lifecycle.model.job_spec import AgentSpec, JobPolicy, Limits
from services.sandbox.spec import Network, Tier

_COUNTS_FROM_ZERO: Final = frozenset({"max_extra_rounds", "verify_timeout", "checkpoint_timeout"})
"""Fields for which 0 in a layer means 0; any other field that is 0 or empty is left open."""

_SHOWN_UNLESS_EMPTY: Final = frozenset({"system_prompt", "model", "image", "terminal", "verify_command"})
"""Fields that are left open in a layer when they are empty in a job."""

_LIMITS: Final = frozenset(each.name for each in fields(Limits))


def resolve_agent(layer: layers.AgentSettings) -> AgentSpec:
    """Return the merged settings of all layers as the lifecycle has them."""
    settings = _settings_of(layer)
    limits = Limits(**{name: settings.pop(name) for name in _LIMITS & settings.keys()})
    return AgentSpec(**settings, limits=limits)


def resolve_policy(layer: layers.JobPolicySettings) -> JobPolicy:
    """Return the merged policy of all layers as the lifecycle has it."""
    return JobPolicy(**_settings_of(layer))


def agent_as_layer(settings: AgentSpec) -> layers.AgentSettings:
    """Return a job's settings as one layer, for the conversion to messages."""
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    limits = asdict(values.pop("limits"))
    return layers.AgentSettings(**_layer_of(values | limits))


def policy_as_layer(policy: JobPolicy) -> layers.JobPolicySettings:
    """Return a job's policy as one layer, for the conversion to messages."""
    return layers.JobPolicySettings(**_layer_of({each.name: getattr(policy, each.name) for each in fields(policy)}))


def _settings_of(layer: layers.AgentSettings | layers.JobPolicySettings) -> dict[str, Any]:
    """Return the settings of a layer as a job has them, without what is left open."""
    settings = {}
    for each in fields(layer):
        value = getattr(layer, each.name)
        if value or (value is not None and each.name in _COUNTS_FROM_ZERO):
            settings[each.name] = _setting_of(value)
    return settings


def _setting_of(value: Any) -> Any:  # noqa: ANN401 - any field's
    match value:
        case timedelta():
            return value.total_seconds()
        case layers.SandboxTier():
            return Tier[value.name]
        case layers.Network():
            return Network[value.name]
        case layers.Checkpoints():
            return value.before
        case Mapping():
            return dict(value)
        case _:
            return value


def _layer_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's settings as a layer has them, without what is left open."""
    layer = {}
    for name, value in settings.items():
        if value is None or (name in _SHOWN_UNLESS_EMPTY and not value):
            continue
        layer[name] = _layer_value_of(name, value)
    return layer


def _layer_value_of(name: str, value: Any) -> Any:  # noqa: ANN401 - any field's
    match value:
        case Tier():
            return layers.SandboxTier[value.name]
        case Network():
            return layers.Network[value.name]
        case _ if name == "checkpoints":
            return layers.Checkpoints(value)
        case _ if name.endswith("timeout"):
            return timedelta(seconds=value)
        case _:
            return value
