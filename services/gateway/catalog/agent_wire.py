"""Convert agent settings and policies, of templates, workers and jobs, between messages and values."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from boatyard.execution.v1 import execution_pb2, sandbox_pb2
from boatyard.gateway.v1 import agent_pb2 as pb

from services.common.engines import ENGINES
from services.common.rpc.rules import Check, Violation
from services.common.rpc.times import duration_to_proto
from services.gateway.values.agent import (
    BOUNDS,
    LEAST_CHECKPOINT_TIMEOUT,
    MAX_ALLOWED_HOSTS,
    MAX_ASK_BEFORE,
    MAX_ATTEMPTS,
    MAX_CHECKPOINT_TIMEOUT,
    MAX_COMMAND_BYTES,
    MAX_EXTRA_ROUNDS,
    MAX_RETRY_ON,
    MAX_SYSTEM_PROMPT_BYTES,
    MAX_TIMEOUT,
    MAX_VERIFY_TIMEOUT,
    NEVER_RETRIED,
    AgentSettings,
    Checkpoints,
    JobPolicySettings,
    Network,
    SandboxTier,
    environment_complaint,
)
from services.gateway.wire.validation import Validator
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.states import PromptDelivery, Publish, Retention, RetryFrom
from services.sandbox.host_patterns import HostPattern

_REASON_PATTERN: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_TOOL_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

# UNSPECIFIED stands for the default; in a field that is set, it is a choice like any other.
_DELIVERIES: Final = {
    execution_pb2.CommandEngine.PROMPT_DELIVERY_UNSPECIFIED: PromptDelivery.STDIN,
    execution_pb2.CommandEngine.PROMPT_DELIVERY_STDIN: PromptDelivery.STDIN,
    execution_pb2.CommandEngine.PROMPT_DELIVERY_ARGUMENT: PromptDelivery.ARGUMENT,
}
_TIERS: Final = {
    sandbox_pb2.SANDBOX_TIER_UNSPECIFIED: SandboxTier.BUBBLEWRAP,
    sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP: SandboxTier.BUBBLEWRAP,
    sandbox_pb2.SANDBOX_TIER_CONTAINER: SandboxTier.CONTAINER,
    sandbox_pb2.SANDBOX_TIER_NONE: SandboxTier.NONE,
}
_NETWORKS: Final = {
    sandbox_pb2.NETWORK_UNSPECIFIED: Network.NONE,
    sandbox_pb2.NETWORK_NONE: Network.NONE,
    sandbox_pb2.NETWORK_OPEN: Network.OPEN,
    sandbox_pb2.NETWORK_ALLOW_LIST: Network.ALLOW_LIST,
}
_PUBLISHES: Final = {
    pb.Policy.PUBLISH_UNSPECIFIED: Publish.PUSH,
    pb.Policy.PUBLISH_PUSH: Publish.PUSH,
    pb.Policy.PUBLISH_NONE: Publish.NONE,
}
_RETENTIONS: Final = {
    pb.Policy.RETENTION_UNSPECIFIED: Retention.KEEP_FAILED,
    pb.Policy.RETENTION_KEEP_FAILED: Retention.KEEP_FAILED,
    pb.Policy.RETENTION_KEEP: Retention.KEEP,
    pb.Policy.RETENTION_REMOVE: Retention.REMOVE,
}
_AGENT_ENUMS: Final[Mapping[str, Mapping[Any, Any]]] = {
    "prompt_delivery": _DELIVERIES,
    "sandbox_tier": _TIERS,
    "network": _NETWORKS,
}
_RETRIES: Final = {
    pb.Policy.RETRY_FROM_UNSPECIFIED: RetryFrom.BASE,
    pb.Policy.RETRY_FROM_BASE: RetryFrom.BASE,
    pb.Policy.RETRY_FROM_SNAPSHOT: RetryFrom.SNAPSHOT,
}
_POLICY_ENUMS: Final[Mapping[str, Mapping[Any, Any]]] = {
    "publish": _PUBLISHES,
    "retention": _RETENTIONS,
    "retry_from": _RETRIES,
}


def agent_from_proto(check: Validator, field: str, message: pb.AgentSettings) -> AgentSettings:
    """Read one layer of settings; `field` is its path, such as `worker.agent`."""
    layer = _set_fields_from_proto(
        check, field, message, ("engine", "command", "system_prompt", "model", "image"), _AGENT_ENUMS
    )
    if "engine" in layer and layer["engine"] not in ENGINES:
        check.add(f"{field}.engine", f"must be {' or '.join(ENGINES)}")
    check.text(f"{field}.command", message.command, MAX_COMMAND_BYTES)
    check.text(f"{field}.system_prompt", message.system_prompt, MAX_SYSTEM_PROMPT_BYTES)
    check.line(f"{field}.model", message.model)
    check.line(f"{field}.image", message.image)
    for name in ("timeout", "idle_timeout"):
        if message.HasField(name):
            layer[name] = check.duration(f"{field}.{name}", getattr(message, name), MAX_TIMEOUT)
    for name, (least, most) in BOUNDS.items():
        if message.HasField(name):  # type: ignore[arg-type]
            layer[name] = getattr(message, name)
            if not least <= layer[name] <= most:
                check.add(f"{field}.{name}", f"must be from {least} to {most}")
    if message.HasField("terminal"):
        layer["terminal"] = message.terminal
    layer["ask_before"] = _tools_from_proto(check, f"{field}.ask_before", message.ask_before)
    layer["allowed_hosts"] = _hosts_from_proto(check, f"{field}.allowed_hosts", message.allowed_hosts)
    environment = dict(message.environment)
    _check_environment(check, f"{field}.environment", environment)
    return AgentSettings(**layer, environment=environment)


def policy_from_proto(check: Validator, field: str, message: pb.Policy) -> JobPolicySettings:
    """Read one layer of a policy; `field` is its path, such as `worker.policy`."""
    layer = _set_fields_from_proto(check, field, message, ("verify_command",), _POLICY_ENUMS)
    check.text(f"{field}.verify_command", message.verify_command, MAX_COMMAND_BYTES)
    if message.HasField("verify_timeout"):
        layer["verify_timeout"] = check.duration(f"{field}.verify_timeout", message.verify_timeout, MAX_VERIFY_TIMEOUT)
    if message.HasField("checkpoints"):
        layer["checkpoints"] = _checkpoints_from_proto(check, f"{field}.checkpoints.before", message.checkpoints.before)
    if message.HasField("checkpoint_timeout"):
        path = f"{field}.checkpoint_timeout"
        layer["checkpoint_timeout"] = check.duration(path, message.checkpoint_timeout, MAX_CHECKPOINT_TIMEOUT)
        if timedelta() < layer["checkpoint_timeout"] < LEAST_CHECKPOINT_TIMEOUT:
            check.add(path, "must be at least 1 s")
    if message.HasField("max_extra_rounds"):
        layer["max_extra_rounds"] = message.max_extra_rounds
        if not 0 <= message.max_extra_rounds <= MAX_EXTRA_ROUNDS:
            check.add(f"{field}.max_extra_rounds", f"must be from 0 to {MAX_EXTRA_ROUNDS}")
    if message.HasField("agent_may_ask"):
        layer["agent_may_ask"] = message.agent_may_ask
    if message.HasField("max_attempts"):
        layer["max_attempts"] = message.max_attempts
        if not 1 <= message.max_attempts <= MAX_ATTEMPTS:
            check.add(f"{field}.max_attempts", f"must be from 1 to {MAX_ATTEMPTS}")
    layer["retry_on"] = _reasons_from_proto(check, f"{field}.retry_on", message.retry_on)
    return JobPolicySettings(**layer)


def check_agent(message: pb.AgentSettings) -> Sequence[Violation]:
    """Return what is wrong with one layer of settings."""
    check = Validator()
    agent_from_proto(check, "", message)
    return [(path.removeprefix("."), text) for path, text in check.violations]


def check_policy(message: pb.Policy) -> Sequence[Violation]:
    """Return what is wrong with one layer of a policy."""
    check = Validator()
    policy_from_proto(check, "", message)
    return [(path.removeprefix("."), text) for path, text in check.violations]


CHECKS: Final[Mapping[str, Check]] = {
    pb.AgentSettings.DESCRIPTOR.full_name: check_agent,
    pb.Policy.DESCRIPTOR.full_name: check_policy,
}
"""Rules for layers of settings, wherever a request has one, by the full names of their messages."""


def agent_to_proto(value: AgentSettings) -> pb.AgentSettings:
    """Write one layer of settings, or all layers merged."""
    return pb.AgentSettings(**_set_fields_to_proto(value, _AGENT_ENUMS), environment=value.environment)


def policy_to_proto(value: JobPolicySettings) -> pb.Policy:
    """Write one layer of a policy, or all layers merged."""
    return pb.Policy(**_set_fields_to_proto(value, _POLICY_ENUMS))


def _set_fields_from_proto(
    check: Validator,
    field: str,
    message: pb.AgentSettings | pb.Policy,
    texts: tuple[str, ...],
    enums: Mapping[str, Mapping[Any, Any]],
) -> dict[str, Any]:
    """Read the text fields and enum fields that are set."""
    values = {name: getattr(message, name) for name in texts if message.HasField(name)}  # type: ignore[arg-type]
    for name, choices in enums.items():
        if message.HasField(name):  # type: ignore[arg-type]
            values[name] = check.choice(f"{field}.{name}", getattr(message, name), choices)
    return values


def _set_fields_to_proto(
    value: AgentSettings | JobPolicySettings, enums: Mapping[str, Mapping[Any, Any]]
) -> dict[str, Any]:
    """Write all fields that are set, except maps."""
    values_by_field = {}
    for field in value.__dataclass_fields__:
        content = getattr(value, field)
        if field in enums and content is not None:
            content = next(number for number, known in enums[field].items() if known is content and number)
        elif isinstance(content, timedelta):
            content = duration_to_proto(content)
        elif isinstance(content, Checkpoints):
            content = pb.Checkpoints(before=content.before)
        if content is not None and not isinstance(content, Mapping):
            values_by_field[field] = content
    return values_by_field


def _checkpoints_from_proto(check: Validator, field: str, before: Sequence[str]) -> Checkpoints:
    if not set(before) <= set(APPROVAL_STAGES):
        check.add(field, f"must be among {', '.join(APPROVAL_STAGES)}")
    return Checkpoints(tuple(stage for stage in APPROVAL_STAGES if stage in before))


def _reasons_from_proto(check: Validator, field: str, reasons: Sequence[str]) -> tuple[str, ...]:
    if len(reasons) > MAX_RETRY_ON:
        check.add(field, f"must be at most {MAX_RETRY_ON}")
    for index, reason in enumerate(reasons[:MAX_RETRY_ON]):
        if not _REASON_PATTERN.fullmatch(reason):
            check.add(f"{field}[{index}]", "must be a reason, such as AGENT_FAILED")
        elif reason in NEVER_RETRIED:
            check.add(f"{field}[{index}]", f"{reason} is never retried")
    return tuple(reasons)


def _tools_from_proto(check: Validator, field: str, names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > MAX_ASK_BEFORE:
        check.add(field, f"must be at most {MAX_ASK_BEFORE}")
    for name in names:
        if not _TOOL_PATTERN.fullmatch(name):
            check.add(field, f"{name[:64]!r} is not a tool's name: 1 to 64 letters, digits, '_' and '-'")
    return tuple(names)


def _hosts_from_proto(check: Validator, field: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if len(patterns) > MAX_ALLOWED_HOSTS:
        check.add(field, f"must be at most {MAX_ALLOWED_HOSTS}")
    for index, pattern in enumerate(patterns):
        try:
            HostPattern.parse(pattern)
        except ValueError as error:
            check.add(f"{field}[{index}]", str(error))
    return tuple(patterns)


def _check_environment(check: Validator, field: str, environment: Mapping[str, str]) -> None:
    if complaint := environment_complaint(environment):
        check.add(field, complaint)
    for name, content in environment.items():
        if not _VARIABLE_PATTERN.fullmatch(name):
            check.add(
                field, f"{name[:64]!r} is not a variable's name: letters, digits and '_', not beginning with a digit"
            )
        if "\0" in content:
            check.add(f"{field}[{name[:64]!r}]", "must not contain NUL characters")
