"""Convert the policies of templates, workers and jobs between messages and values, and read agent settings beside them."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from boatyard.agent.v1 import agent_pb2
from boatyard.gateway.v1 import policy_pb2 as pb

from services.agent import wire as agents
from services.agent.settings import AgentSettings
from services.gateway.values.policy import (
    LEAST_CHECKPOINT_TIMEOUT,
    MAX_ATTEMPTS,
    MAX_CHECKPOINT_TIMEOUT,
    MAX_COMMAND_BYTES,
    MAX_EXTRA_ROUNDS,
    MAX_RETRY_ON,
    MAX_VERIFY_TIMEOUT,
    NEVER_RETRIED,
    Checkpoints,
    JobPolicySettings,
)
from services.gateway.wire.times import duration_to_proto
from services.gateway.wire.validation import Validator
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.states import Publish, Retention, RetryFrom

_REASON_PATTERN: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")

# UNSPECIFIED stands for the default; in a field that is set, it is a choice like any other.
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


def agent_from_proto(check: Validator, field: str, message: agent_pb2.AgentSettings) -> AgentSettings:
    """Read one layer of settings; `field` is its path, such as `worker.agent`."""
    for path, rule in agents.violations(field, message):
        check.add(path, rule)
    return agents.agent_from_proto(message)


def policy_from_proto(check: Validator, field: str, message: pb.Policy) -> JobPolicySettings:
    """Read one layer of a policy; `field` is its path, such as `worker.policy`."""
    layer: dict[str, Any] = {
        name: check.choice(f"{field}.{name}", getattr(message, name), choices)
        for name, choices in _POLICY_ENUMS.items()
        if message.HasField(name)  # type: ignore[arg-type]
    }
    if message.HasField("verify_command"):
        layer["verify_command"] = message.verify_command
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


def policy_to_proto(value: JobPolicySettings) -> pb.Policy:
    """Write one layer of a policy, or all layers merged."""
    return pb.Policy(**_set_fields_to_proto(value))


def _set_fields_to_proto(value: JobPolicySettings) -> dict[str, Any]:
    values_by_field = {}
    for field in value.__dataclass_fields__:
        content = getattr(value, field)
        if field in _POLICY_ENUMS and content is not None:
            content = next(number for number, known in _POLICY_ENUMS[field].items() if known is content and number)
        elif isinstance(content, timedelta):
            content = duration_to_proto(content)
        elif isinstance(content, Checkpoints):
            content = pb.Checkpoints(before=content.before)
        if content is not None:
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
