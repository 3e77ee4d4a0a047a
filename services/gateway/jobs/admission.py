"""From a wish to a job: all that it names is looked up, its settings are laid together, and it is written at once.

Admission is one transaction: the request's id, the job, its first execution, and the work item's new state.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import FailedPrecondition, Invalid
from services.common.ids import new_id
from services.common.sandbox.spec import Network
from services.gateway import requests
from services.gateway.catalog.agent import (
    DEFAULT_AGENT,
    DEFAULT_POLICY,
    AgentSettings,
    Policy,
    environment_complaint,
    overlay,
)
from services.gateway.catalog.model import (
    DEFAULT_PROJECT_ID,
    Document,
    Repository,
    Template,
    Worker,
    WorkItem,
    WorkItemState,
)
from services.gateway.catalog.store import (
    PROJECTS,
    REPOSITORIES,
    TEMPLATES,
    WORK_ITEMS,
    WORKERS,
    Hold,
    Kind,
    Thing,
    set_work_item_state,
)
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.model import JobView
from services.gateway.jobs.notes import new_execution
from services.gateway.jobs.rows import job_view
from services.gateway.jobs.settled import settled_agent, settled_policy
from services.gateway.jobs.store import LIVE
from services.gateway.jobs.tables import NOW, executions, jobs
from services.gateway.requests import Request
from services.lifecycle.model.order import MODEL_ENGINE, Order
from services.lifecycle.model.order import AgentSettings as SettledAgent
from services.lifecycle.model.states import JobState, PromptDelivery, Purpose
from services.lifecycle.model.value import dump

MAX_PROMPT_BYTES = 1 << 20
MAX_ARGUMENT_BYTES = (128 << 10) - 1  # the kernel's, for one argument with its closing NUL
# What the execution service takes for a whole environment, less what we add beside the system prompt.
MAX_AGENT_ENVIRONMENT_BYTES = 63 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A wish for a job, well-formed. A project of None is the worker's; other ids that are empty name nothing."""

    project_id: str | None
    prompt: str
    kind: str = "task"
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
    path: str = ""
    """Where its fields stand in the request, such as `spec.`, for violations."""


@dataclass(frozen=True, slots=True)
class _Named:
    """What a draft names, as it is in the catalogue."""

    project_id: str
    worker: Worker | None
    template: Template | None
    work_item: WorkItem | None
    repository: Repository | None


class Admission:
    """Admits jobs. `agent_command` is run, and `agent_model` is asked, where no layer of settings has another."""

    def __init__(self, engine: AsyncEngine, changes: Changes, agent_command: str, agent_model: str = "") -> None:
        self._engine = engine
        self._changes = changes
        self._default = replace(DEFAULT_AGENT, command=agent_command)
        self._model = agent_model

    async def admit(self, draft: Draft, request: Request | None) -> JobView:
        """Write a job, PENDING; for a request that was made before, return the job that it made.

        Raises NotFound for what the draft names, Invalid for what only shows when all is laid together,
        FailedPrecondition (WORK_ITEM_BUSY), AlreadyExists (REQUEST_ID_REUSED).
        """
        job_id = new_id("job")
        async with self._engine.begin() as connection:
            earlier = await requests.claim(connection, request, job_id)
            if earlier is not None:
                return await job_view(connection, earlier)
            named = await _look_up(connection, draft)
            if named.work_item is not None:
                await _occupy(connection, named.work_item)
            create_time = (await connection.execute(select(NOW))).scalar_one()
            order = self._order(job_id, draft, named, create_time)
            _check(order, draft)
            await _write(connection, order)
            view = await job_view(connection, job_id)
        self._changes.changed(job_id, work=True)
        return view

    def _order(self, job_id: str, draft: Draft, named: _Named, create_time: datetime) -> Order:
        agent, policy = self._default, DEFAULT_POLICY
        for layer in (named.template, named.worker, draft):
            if layer is not None:
                agent, policy = overlay(agent, layer.agent), overlay(policy, layer.policy)
        branch = f"ticket-{named.work_item.work_item_id}" if named.work_item else f"boatyard/{job_id}"
        return Order(
            job_id=job_id,
            project_id=named.project_id,
            kind=draft.kind,
            priority=draft.priority,
            prompt=draft.prompt,
            task=task(draft.prompt, named.work_item),
            create_time=create_time,
            repository_id=named.repository.repository_id if named.repository else "",
            revision=draft.revision or (named.repository.default_revision if named.repository else b""),
            snapshot_id=draft.snapshot_id,
            branch=(draft.branch or branch.encode()) if named.repository else b"",
            worker_id=draft.worker_id,
            worker_name=named.worker.display_name if named.worker else "",
            work_item_id=draft.work_item_id,
            template_id=named.template.template_id if named.template else "",
            agent=self._settled(agent),
            policy=settled_policy(policy),
            labels=draft.labels,
        )

    def _settled(self, layer: AgentSettings) -> SettledAgent:
        agent = settled_agent(layer)
        # A command may have a model of its own, and is told of none that nobody chose for it.
        return replace(agent, model=agent.model or self._model) if agent.engine == MODEL_ENGINE else agent


async def _look_up(connection: AsyncConnection, draft: Draft) -> _Named:
    """Find what a draft names. What belongs to another project is not found."""

    async def named(kind: Kind[Thing], thing_id: str, project_id: str | None, hold: Hold = "share") -> Thing | None:
        return await kind.get(connection, thing_id, project_id, hold=hold) if thing_id else None

    worker = await named(WORKERS, draft.worker_id, draft.project_id)
    project_id = draft.project_id or (worker.project_id if worker else DEFAULT_PROJECT_ID)
    await PROJECTS.get(connection, project_id, hold="share")
    template = await named(TEMPLATES, draft.template_id or (worker.template_id if worker else ""), project_id)
    work_item = await named(WORK_ITEMS, draft.work_item_id, project_id, "change")
    repository_id = draft.repository_id or (work_item.repository_id if work_item else "")
    repository = await named(REPOSITORIES, repository_id, project_id)
    return _Named(project_id, worker, template, work_item, repository)


async def _occupy(connection: AsyncConnection, work_item: WorkItem) -> None:
    """Put a work item in progress. Raises FailedPrecondition when a job works on it already."""
    work_item_id = work_item.work_item_id
    # The update comes first, for its lock: of two admissions at once the second sees the first one's job.
    await set_work_item_state(connection, work_item_id, WorkItemState.IN_PROGRESS)
    live = select(jobs.c.job_id).where(jobs.c.work_item_id == work_item_id, jobs.c.state.in_(LIVE))
    job_id = (await connection.execute(live)).scalars().first()
    if job_id is not None:
        raise FailedPrecondition(
            "WORK_ITEM_BUSY",
            f"job {job_id} works on work item {work_item_id!r}: wait for its end, or cancel it",
            work_item_id,
            metadata={"job_id": job_id},
        )


def task(prompt: str, work_item: WorkItem | None) -> str:
    """Return what the agent is told: of a work item all that is known, and then what the caller asks."""
    if work_item is None:
        return prompt
    parts = [f"# {work_item.title}", work_item.description]
    if work_item.notes:
        parts += ["## Notes", *work_item.notes]
    if work_item.documents:
        parts += ["## Documents", *map(_quoted, work_item.documents)]
    return "\n\n".join(part.strip() for part in (*parts, "## What to do", prompt) if part.strip()) + "\n"


def _quoted(document: Document) -> str:
    """Return a document as a block that ends where it ends, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", document.content)), default=0))
    return f"### {document.name}\n\n{fence}\n{document.content.rstrip()}\n{fence}"


def _check(order: Order, draft: Draft) -> None:
    """Raise Invalid for what only shows when everything is laid together."""
    agent, path, violations = order.agent, draft.path, []
    size = len(order.task.encode())
    if size > MAX_PROMPT_BYTES:
        violations.append((f"{path}prompt", "must be at most 1 MiB together with what the work item says"))
    if agent.engine == MODEL_ENGINE:
        if not agent.model:
            missing = "is required: neither worker, template nor the gateway's ANTHROPIC_MODEL has one"
            violations.append((f"{path}agent.model", missing))
    else:
        violations += _command_violations(agent, size, path)
    if order.snapshot_id and not order.repository_id:
        violations.append((f"{path}snapshot_id", "needs the repository that it is of"))
    if agent.terminal and (agent.engine == MODEL_ENGINE or agent.prompt_delivery is not PromptDelivery.ARGUMENT):
        violations.append((f"{path}agent.terminal", "needs a command that gets its prompt as an argument"))
    if draft.agent.allowed_hosts and agent.network is not Network.ALLOW_LIST:
        violations.append((f"{path}agent.allowed_hosts", "needs the network ALLOW_LIST"))
    if complaint := environment_complaint(agent.environment):
        violations.append((f"{path}agent.environment", complaint))
    if violations:
        raise Invalid(violations)


def _command_violations(agent: SettledAgent, prompt_bytes: int, path: str) -> list[tuple[str, str]]:
    violations = []
    if agent.prompt_delivery is PromptDelivery.ARGUMENT and prompt_bytes > MAX_ARGUMENT_BYTES:
        violations.append((f"{path}prompt", "must be less than 128 KiB to be given as an argument"))
    if not agent.command.strip():
        missing = "is required: neither worker, template nor the gateway's AGENT_COMMAND has one"
        violations.append((f"{path}agent.command", missing))
    given = sum(len(name.encode()) + len(value.encode()) for name, value in agent.environment.items())
    if given + len(agent.system_prompt.encode()) > MAX_AGENT_ENVIRONMENT_BYTES:
        violations.append((f"{path}agent", "environment and system prompt must be at most 63 KiB together"))
    return violations


async def _write(connection: AsyncConnection, order: Order) -> None:
    execution_id = new_id("exec")
    await connection.execute(
        insert(jobs).values(
            job_id=order.job_id,
            project_id=order.project_id,
            kind=order.kind,
            worker_id=order.worker_id,
            work_item_id=order.work_item_id,
            repository_id=order.repository_id,
            template_id=order.template_id,
            engine=order.agent.engine,
            priority=order.priority,
            definition=dump(order),
            state=JobState.PENDING,
            reason="",
            message="",
            revision=1,
            cancel_requested=False,
            attempt=1,
            execution_id=execution_id,
            wake_time=0,
            bound_cell_id="",
            fence=0,
            cell_id="",
            held=False,
            lease_until=0,
            create_time=order.create_time,
        )
    )
    row = new_execution(execution_id, order.job_id, 1, Purpose.AGENT) | {"create_time": order.create_time}
    await connection.execute(insert(executions).values(row))
