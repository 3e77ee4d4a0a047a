"""A wish for a job, and what is checked of it once all that it names has been looked up and laid together."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.common.errors import Invalid
from services.gateway.auth.current import current_access
from services.gateway.auth.model import Role
from services.gateway.catalog.agent import AgentSettings, Checkpoints, Policy, environment_complaint
from services.gateway.jobs.kinds import DEFAULT_KIND, JobKind
from services.lifecycle.model.job_context import FileContent
from services.lifecycle.model.job_spec import MAX_ARGUMENT_BYTES, MAX_PROMPT_BYTES, MODEL_ENGINE, JobSpec
from services.lifecycle.model.job_spec import AgentSpec as SettledAgent
from services.lifecycle.model.states import PromptDelivery
from services.sandbox.spec import Network, Tier

# What the execution service takes for a whole environment, less what we add beside the system prompt.
MAX_AGENT_ENVIRONMENT_BYTES: Final = 63 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A wish for a job, well-formed. A project of None is the worker's; other ids that are empty name nothing.

    `data` is empty, or a JSON object. `delay` counts from its admission; it has at most one of that and `not_before`.
    """

    project_id: str | None
    prompt: str
    kind: str = DEFAULT_KIND
    priority: int = 0
    repository_id: str = ""
    revision: bytes = b""
    snapshot_id: str = ""
    branch: bytes = b""
    worker_id: str = ""
    work_item_id: str = ""
    template_id: str = ""
    agent: AgentSettings = field(default_factory=AgentSettings)
    policy: Policy = field(default_factory=Policy)
    labels: Mapping[str, str] = field(default_factory=dict)
    delay: timedelta | None = None
    not_before: datetime | None = None
    files: tuple[FileContent, ...] = ()
    data: bytes = b""
    path: str = ""
    """Where its fields stand in the request, such as `spec.`, for violations."""


def check(order: JobSpec, draft: Draft, kind: JobKind, *, asked_below: Checkpoints) -> None:
    """Raise Invalid for what only shows when everything is laid together.

    `asked_below` is where a person would be asked if the draft said nothing: only an administrator's may ask less.
    """
    found = [*_violations(order, draft, kind), *_left_out(draft, asked_below)]
    if found:
        raise Invalid([(draft.path + field, description) for field, description in found])


def _left_out(draft: Draft, asked_below: Checkpoints) -> Iterator[tuple[str, str]]:
    own = draft.policy.checkpoints
    if own is None or current_access().role is Role.ADMIN:
        return
    if left_out := [stage for stage in asked_below.before if stage not in own.before]:
        asked = f"must have {', '.join(left_out)}, before which its worker, template or kind has a person asked"
        yield "policy.checkpoints.before", f"{asked}: only an administrator's job may leave that out"


def _violations(order: JobSpec, draft: Draft, kind: JobKind) -> Iterator[tuple[str, str]]:
    agent, size = order.agent, len(order.task.encode())
    yield from _missing(order, kind)
    if size > MAX_PROMPT_BYTES:
        yield "prompt", "must be at most 1 MiB together with what the work item says"
    if agent.engine == MODEL_ENGINE:
        if not agent.model:
            yield "agent.model", "is required: neither worker, template nor the gateway's ANTHROPIC_MODEL has one"
    else:
        yield from _command_violations(agent, size)
    if order.snapshot_id and not order.repository_id:
        yield "snapshot_id", "needs the repository that it is of"
    if agent.terminal and (agent.engine == MODEL_ENGINE or agent.prompt_delivery is not PromptDelivery.ARGUMENT):
        yield "agent.terminal", "needs a command that gets its prompt as an argument"
    if draft.agent.allowed_hosts and agent.network is not Network.ALLOW_LIST:
        yield "agent.allowed_hosts", "needs the network ALLOW_LIST"
    yield from _container_violations(agent, draft)
    if complaint := environment_complaint(agent.environment):
        yield "agent.environment", complaint


def _container_violations(agent: SettledAgent, draft: Draft) -> Iterator[tuple[str, str]]:
    if agent.sandbox_tier is not Tier.CONTAINER:
        if draft.agent.image:
            yield "agent.image", "needs the sandbox tier CONTAINER"
        return
    if agent.network is Network.ALLOW_LIST:
        yield "agent.network", "cannot be ALLOW_LIST in a container: use NONE or OPEN, or the sandbox tier BUBBLEWRAP"
    if agent.terminal:
        yield "agent.terminal", "cannot be had in a container"


def _missing(order: JobSpec, kind: JobKind) -> Iterator[tuple[str, str]]:
    for name in kind.required_fields:
        if not getattr(order, name):
            yield name, f"is required for the kind {kind.name}"
    given = json.loads(order.data) if order.data else {}
    absent = [name for name in kind.required_data if name not in given]
    if absent and (order.data or "data" not in kind.required_fields):
        yield "data", f"must have {', '.join(absent)} for the kind {kind.name}"


def _command_violations(agent: SettledAgent, prompt_bytes: int) -> Iterator[tuple[str, str]]:
    if agent.prompt_delivery is PromptDelivery.ARGUMENT and prompt_bytes > MAX_ARGUMENT_BYTES:
        yield "prompt", "must be less than 128 KiB to be given as an argument"
    if not agent.command.strip():
        yield "agent.command", "is required: neither worker, template nor the gateway's AGENT_COMMAND has one"
    given = sum(len(name.encode()) + len(value.encode()) for name, value in agent.environment.items())
    if given + len(agent.system_prompt.encode()) > MAX_AGENT_ENVIRONMENT_BYTES:
        yield "agent", "environment and system prompt must be at most 63 KiB together"
