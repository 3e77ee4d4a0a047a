"""From a wish to a job: all that it names is looked up, its settings are laid together, and it is written at once.

Admission is one transaction: the request's id, the job, its first execution, and the work item's new state.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import microseconds
from services.common.errors import FailedPrecondition, NotFound
from services.common.ids import new_id
from services.gateway import requests
from services.gateway.auth import scope
from services.gateway.catalog.agent import (
    DEFAULT_AGENT,
    DEFAULT_POLICY,
    AgentSettings,
    Checkpoints,
    Policy,
    overlay,
)
from services.gateway.catalog.model import (
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
from services.gateway.jobs import drafts
from services.gateway.jobs.changes import Changes
from services.gateway.jobs.drafts import Draft
from services.gateway.jobs.files import write_files
from services.gateway.jobs.kinds import JobKind, Kinds, load_kinds
from services.gateway.jobs.labels import write_labels
from services.gateway.jobs.model import JobView
from services.gateway.jobs.notes import new_execution
from services.gateway.jobs.rows import job_view
from services.gateway.jobs.settled import settled_agent, settled_policy
from services.gateway.jobs.store import LIVE
from services.gateway.jobs.tables import NOW, executions, jobs
from services.gateway.jobs.task import task
from services.gateway.jobs.turns import DEFAULT_AGEING_SECONDS, turn_of
from services.gateway.requests import Request
from services.lifecycle.model.job_spec import MODEL_ENGINE, InputFile, JobSpec
from services.lifecycle.model.job_spec import AgentSpec as SettledAgent
from services.lifecycle.model.states import JobState, Purpose
from services.lifecycle.model.value import dump
from services.lifecycle.run import execution_of_snapshot


@dataclass(frozen=True, slots=True)
class _Named:
    """What a draft names, as it is in the catalogue."""

    project_id: str
    worker: Worker | None
    template: Template | None
    work_item: WorkItem | None
    repository: Repository | None
    related: tuple[WorkItem, ...]


class Admission:
    """Admits jobs. `agent_command` is run, and `agent_model` is asked, where no layer of settings has another."""

    def __init__(
        self,
        engine: AsyncEngine,
        changes: Changes,
        agent_command: str,
        agent_model: str = "",
        kinds: Kinds | None = None,
        *,
        ageing_seconds: float = DEFAULT_AGEING_SECONDS,
    ) -> None:
        self._engine = engine
        self._changes = changes
        self.kinds = load_kinds() if kinds is None else kinds
        self._default = replace(DEFAULT_AGENT, command=agent_command)
        self._model = agent_model
        self._ageing_seconds = ageing_seconds

    @property
    def has_agent(self) -> bool:
        """Whether there is an agent for jobs for which nobody has said another."""
        return bool((self._default.command or "").strip())

    async def admit(self, draft: Draft, request: Request | None) -> JobView:
        """Write a job, PENDING; for a request that was made before, return the job that it made.

        The draft's kind must be one of `kinds`.
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
                await occupy(connection, named.work_item.work_item_id)
            create_time = (await connection.execute(select(NOW))).scalar_one()
            kind = self.kinds[draft.kind]
            below = _policy_below(named, kind)
            order = self._order(job_id, draft, named, below, create_time)
            drafts.check(order, draft, kind, asked_below=below.checkpoints or Checkpoints())
            await _write(connection, order, self._ageing_seconds)
            await write_labels(connection, job_id, order.labels)
            await write_files(connection, job_id, draft.files)
            view = await job_view(connection, job_id)
        self._changes.changed(job_id, work=True)
        return view

    def _order(self, job_id: str, draft: Draft, named: _Named, below: Policy, create_time: datetime) -> JobSpec:
        agent, policy = self._default, overlay(below, draft.policy)
        for layer in (named.template, named.worker, draft):
            if layer is not None:
                agent = overlay(agent, layer.agent)
        branch = f"ticket-{named.work_item.work_item_id}" if named.work_item else f"boatyard/{job_id}"
        return JobSpec(
            job_id=job_id,
            project_id=named.project_id,
            kind=draft.kind,
            priority=draft.priority,
            prompt=draft.prompt,
            task=task(
                draft.prompt,
                named.work_item,
                named.related,
                files=[file.name for file in draft.files],
                has_data=bool(draft.data),
            ),
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
            not_before=draft.not_before if draft.delay is None else create_time + draft.delay,
            files=tuple(InputFile(file.name, len(file.data)) for file in draft.files),
            data=draft.data,
        )

    def _settled(self, layer: AgentSettings) -> SettledAgent:
        agent = settled_agent(layer)
        # A command may have a model of its own, and is told of none that nobody chose for it.
        return replace(agent, model=agent.model or self._model) if agent.engine == MODEL_ENGINE else agent


def _policy_below(named: _Named, kind: JobKind) -> Policy:
    """Return the policy that a draft's own is laid over."""
    policy = overlay(DEFAULT_POLICY, kind.policy)
    for layer in (named.template, named.worker):
        if layer is not None:
            policy = overlay(policy, layer.policy)
    return policy


async def _look_up(connection: AsyncConnection, draft: Draft) -> _Named:
    """Find what a draft names. What belongs to another project is not found."""

    async def named(kind: Kind[Thing], thing_id: str, project_id: str | None, hold: Hold = "share") -> Thing | None:
        return await kind.get(connection, thing_id, project_id, hold=hold) if thing_id else None

    worker = await named(WORKERS, draft.worker_id, draft.project_id)
    project_id = draft.project_id or (worker.project_id if worker else scope.default_project())
    await PROJECTS.get(connection, project_id, hold="share")
    template = await named(TEMPLATES, draft.template_id or (worker.template_id if worker else ""), project_id)
    work_item = await named(WORK_ITEMS, draft.work_item_id, project_id, "change")
    repository_id = draft.repository_id or (work_item.repository_id if work_item else "")
    repository = await named(REPOSITORIES, repository_id, project_id)
    related = await _related(connection, work_item) if work_item else ()
    return _Named(project_id, worker, template, work_item, repository, related)


async def _related(connection: AsyncConnection, work_item: WorkItem) -> tuple[WorkItem, ...]:
    """Return those of the related work items that are still there."""
    found = []
    for related_id in work_item.related_work_item_ids:
        with suppress(NotFound):
            found.append(await WORK_ITEMS.get(connection, related_id, work_item.project_id))
    return tuple(found)


async def occupy(connection: AsyncConnection, work_item_id: str) -> None:
    """Put a work item in progress. Raises FailedPrecondition when a job works on it already."""
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


async def _write(connection: AsyncConnection, order: JobSpec, ageing_seconds: float) -> None:
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
            last_attempt=order.policy.max_attempts,
            execution_id=execution_id,
            snapshot_id="",
            turn=turn_of(order.priority, max(order.create_time, order.not_before or order.create_time), ageing_seconds),
            wake_time=0 if order.not_before is None else microseconds(order.not_before),
            bound_cell_id=await _cell_of_snapshot(connection, order.snapshot_id),
            fence=0,
            cell_id="",
            held=False,
            lease_until=0,
            create_time=order.create_time,
        )
    )
    row = new_execution(execution_id, order.job_id, 1, Purpose.AGENT) | {"create_time": order.create_time}
    await connection.execute(insert(executions).values(row))


async def _cell_of_snapshot(connection: AsyncConnection, snapshot_id: str) -> str:
    """Return the one cell on which a job can start from a snapshot; empty for none, or where that is not known."""
    if not snapshot_id:
        return ""
    left_by = select(executions.c.cell_id).where(executions.c.execution_id == execution_of_snapshot(snapshot_id))
    return (await connection.execute(left_by)).scalar_one_or_none() or ""
