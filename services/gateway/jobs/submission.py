"""A submission of a job, and its checks once all that it names has been looked up and merged."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.agent.engines import ENGINES
from services.agent.recordings import Matching
from services.agent.settings import AgentSettings, environment_complaint
from services.common.errors import Invalid
from services.common.untrusted_json import parse_json
from services.gateway.jobs.kinds import DEFAULT_KIND, JobKind
from services.gateway.values.principal import Role, current_principal
from services.lifecycle.model.job_context import FileContent
from services.lifecycle.model.job_spec import MAX_ARGUMENT_BYTES, MAX_PROMPT_BYTES, JobSpec
from services.lifecycle.model.policy import Checkpoints, Policy
from services.sandbox.spec import Network, Tier

# What the execution service accepts for a whole environment, minus what we add beside the system prompt.
MAX_AGENT_ENVIRONMENT_BYTES: Final = 63 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmission:
    """A well-formed submission of a job. A project of None means the worker's; other ids may be empty, for none.

    `data` is empty or a JSON object. `delay` counts from admission; at most one of `delay` and `not_before` is set.
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
    policy: Policy[None] = field(default_factory=Policy)
    labels: Mapping[str, str] = field(default_factory=dict)
    delay: timedelta | None = None
    not_before: datetime | None = None
    files: tuple[FileContent, ...] = ()
    data: bytes = b""
    replay: Matching | None = None
    """How `recording` answers what the agent asks of models; None without one."""
    recording: bytes = field(default=b"", repr=False)
    waive_floors: bool = False
    path: str = ""
    """The prefix of its fields' paths in the request, such as `spec.`, for violations."""


def check_submission(
    spec: JobSpec,
    submission: JobSubmission,
    kind: JobKind,
    *,
    asked_below: Checkpoints,
    of_floors: Iterable[tuple[str, str]] = (),
) -> None:
    """Raise Invalid for what shows only when everything is merged.

    `asked_below` are the checkpoints of kind, template and worker: only an administrator's job may have fewer.
    `of_floors` is what floors do not allow.
    """
    violations = [*_violations(spec, submission, kind), *_checkpoint_violations(spec, asked_below), *of_floors]
    if violations:
        raise Invalid([(submission.path + field, description) for field, description in violations])


def _checkpoint_violations(spec: JobSpec, asked_below: Checkpoints) -> Iterator[tuple[str, str]]:
    if current_principal().role is Role.ADMIN:
        return
    if omitted := [stage for stage in asked_below.before if stage not in spec.policy.checkpoints.before]:
        rule = (
            f"must have {', '.join(omitted)}, before which its worker, template or kind requires that a person is asked"
        )
        yield "policy.checkpoints.before", f"{rule}: only an administrator's job may leave that out"


def _violations(spec: JobSpec, submission: JobSubmission, kind: JobKind) -> Iterator[tuple[str, str]]:
    agent, task_bytes = spec.agent, len(spec.task.encode())
    yield from _missing(spec, kind)
    if task_bytes > MAX_PROMPT_BYTES:
        yield "prompt", "must be at most 1 MiB together with the text of the work item"
    engine, traits = agent.chosen_engine, ENGINES[agent.chosen_engine.name]
    yield from ((f"agent.{engine.name}.{field}", rule) for field, rule in engine.violations())
    if traits.needs_model and not agent.model:
        yield "agent.model", "is required: neither the worker, the template nor the gateway's ANTHROPIC_MODEL has one"
    if engine.prompt_is_argument and task_bytes > MAX_ARGUMENT_BYTES:
        yield "prompt", "must be less than 128 KiB to be passed as an argument"
    if traits.runs_command:
        yield from _environment_violations(agent)
    if spec.snapshot_id and not spec.repository_id:
        yield "snapshot_id", "needs the repository that the snapshot is of"
    if submission.agent.allowed_hosts and agent.network is not Network.ALLOW_LIST:
        yield "agent.allowed_hosts", "needs the network ALLOW_LIST (--network allow-list)"
    yield from _container_violations(agent, submission)
    if complaint := environment_complaint({**agent.environment, **agent.secrets}):
        yield "agent.environment", complaint


def _container_violations(agent: AgentSettings, submission: JobSubmission) -> Iterator[tuple[str, str]]:
    if agent.sandbox_tier is not Tier.CONTAINER:
        if submission.agent.image:
            yield "agent.image", "needs the sandbox tier CONTAINER (--sandbox container)"
        return
    if agent.chosen_engine.wants_terminal:
        yield f"agent.{agent.chosen_engine.name}.terminal", "is not available in a container"


def _missing(spec: JobSpec, kind: JobKind) -> Iterator[tuple[str, str]]:
    for name in kind.required_fields:
        if not getattr(spec, name):
            yield name, f"is required for the kind {kind.name}"
    data = parse_json(spec.data) if spec.data else {}
    absent = [name for name in kind.required_data if name not in data]
    if absent and (spec.data or "data" not in kind.required_fields):
        yield "data", f"must have {', '.join(absent)} for the kind {kind.name}"


def _environment_violations(agent: AgentSettings) -> Iterator[tuple[str, str]]:
    variables = [*agent.environment.items(), *agent.secrets.items()]
    environment_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in variables)
    if environment_bytes + len((agent.system_prompt or "").encode()) > MAX_AGENT_ENVIRONMENT_BYTES:
        yield "agent", "the environment, the secrets and the system prompt must be at most 63 KiB together"
