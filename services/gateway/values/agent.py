"""How an agent runs and what happens around its work, in three layers: a template's, a worker's, a job's.

In each layer, a field that is None or an empty list, or a key that is missing in a map, is left to the layer below.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, TypeVar

from services.common.engines import DEFAULT_ENGINE
from services.common.reasons import REASONS, Retried
from services.lifecycle.model.states import PromptDelivery, Publish, Retention, RetryFrom

MAX_COMMAND_BYTES = 64 * 1024
MAX_SYSTEM_PROMPT_BYTES = 64 * 1024
MAX_ENVIRONMENT_ENTRIES = 128
MAX_ENVIRONMENT_BYTES = 64 * 1024
MAX_TIMEOUT = timedelta(days=7)
MAX_VERIFY_TIMEOUT = timedelta(days=1)
LEAST_CHECKPOINT_TIMEOUT = timedelta(seconds=1)
MAX_CHECKPOINT_TIMEOUT = timedelta(days=30)
MAX_EXTRA_ROUNDS = 50

MAX_ATTEMPTS = 20
MAX_RETRY_ON = 64
NEVER_RETRIED = frozenset(row.reason for row in REASONS.values() if row.retried is Retried.NEVER) | {"CANCELLED"}
"""Reasons that are a decision, or for which a retry would cost the same again."""
MAX_ASK_BEFORE = 64
MAX_ALLOWED_HOSTS = 256
BOUNDS: Mapping[str, tuple[int, int]] = {
    "max_turns": (1, 10_000),
    "max_tokens": (1, 128_000),
    "token_budget": (1, (1 << 63) - 1),
    "memory_bytes": (16 << 20, 1 << 50),
    "processes": (1, 1_000_000),
    "disk_bytes": (1 << 20, 1 << 50),
    "output_bytes": (1 << 10, 1 << 40),
    "cpu_seconds": (1, 100_000_000),
}
"""The minimum and the maximum of each number in AgentSettings."""


class SandboxTier(enum.StrEnum):
    """How strongly an agent is isolated from the host."""

    BUBBLEWRAP = "BUBBLEWRAP"
    CONTAINER = "CONTAINER"
    NONE = "NONE"


class Network(enum.StrEnum):
    """What an agent can reach of the network."""

    NONE = "NONE"
    ALLOW_LIST = "ALLOW_LIST"
    OPEN = "OPEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """One layer of how an agent runs; the contract explains each field.

    An empty `command`, `system_prompt`, `model` or `image` hides the value of the layers below, and means none.
    """

    engine: str | None = None
    command: str | None = None
    prompt_delivery: PromptDelivery | None = None
    system_prompt: str | None = None
    model: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: timedelta | None = None
    idle_timeout: timedelta | None = None
    sandbox_tier: SandboxTier | None = None
    network: Network | None = None
    max_turns: int | None = None
    max_tokens: int | None = None
    token_budget: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None
    output_bytes: int | None = None
    cpu_seconds: int | None = None
    terminal: bool | None = None
    ask_before: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    image: str | None = None


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


DEFAULT_AGENT = AgentSettings(
    engine=DEFAULT_ENGINE,
    prompt_delivery=PromptDelivery.STDIN,
    timeout=timedelta(hours=1),
    sandbox_tier=SandboxTier.BUBBLEWRAP,
    network=Network.NONE,
)
"""The lowest layer. It has no command, because that is a setting of the gateway."""

DEFAULT_POLICY = JobPolicySettings(
    verify_timeout=timedelta(minutes=10), publish=Publish.PUSH, retention=Retention.KEEP_FAILED
)

Layer = TypeVar("Layer", AgentSettings, JobPolicySettings)


def overlay(base: Layer, over: Layer) -> Layer:
    """Lay one layer over another: what `over` sets wins, and maps are merged by key."""
    changes: dict[str, Any] = {}
    for each in fields(over):
        value = getattr(over, each.name)
        if isinstance(value, Mapping):
            changes[each.name] = {**getattr(base, each.name), **value}
        elif value not in (None, ()):
            changes[each.name] = value
    return replace(base, **changes)


def environment_complaint(environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with an environment as a whole, or None. For single layers, and for all of them merged."""
    if len(environment) > MAX_ENVIRONMENT_ENTRIES:
        return f"must have at most {MAX_ENVIRONMENT_ENTRIES} entries"
    size = sum(len(name.encode()) + len(value.encode()) for name, value in environment.items())
    if size > MAX_ENVIRONMENT_BYTES:
        return f"must have at most {MAX_ENVIRONMENT_BYTES // 1024} KiB together"
    return None
