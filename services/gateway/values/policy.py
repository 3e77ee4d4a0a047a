"""What happens around an agent's work, in layers: a kind's, a template's, a worker's, a work item's, a job's.

In each layer, a field that is None or an empty list is left to the layer below: see `services.agent.settings.overlay`.
"""

from dataclasses import dataclass, fields
from datetime import timedelta

from services.common.reasons import REASONS, Retried
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.job_spec import JobPolicy
from services.lifecycle.model.states import Publish, Retention, RetryFrom

NEVER_RETRIED = frozenset(row.reason for row in REASONS.values() if row.retried is Retried.NEVER) | {"CANCELLED"}
"""Reasons that are a decision, or for which a retry would cost the same again."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The stages before which a person is asked. An empty list, too, hides that of the layer below."""

    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPolicySettings:
    """One layer of what happens around an agent's work. An empty `verify_command`, unlike None, means no check."""

    verify_command: str | None = None
    verify_timeout: timedelta | None = None
    publish: Publish | None = None
    retention: Retention | None = None
    checkpoints: Checkpoints | None = None
    checkpoint_timeout: timedelta | None = None
    max_extra_rounds: int | None = None
    agent_may_ask: bool | None = None
    max_attempts: int | None = None
    retry_on: tuple[str, ...] = ()
    retry_from: RetryFrom | None = None


def resolve_policy(layers: JobPolicySettings) -> JobPolicy:
    """Return the merged policy of all layers as a job has it; what they leave open has the lifecycle's default."""
    values = {each.name: getattr(layers, each.name) for each in fields(layers)}
    chosen = {name: value for name, value in values.items() if value not in (None, ())}
    if layers.checkpoints is not None:
        chosen["checkpoints"] = tuple(stage for stage in APPROVAL_STAGES if stage in layers.checkpoints.before)
    return JobPolicy(**chosen)
