"""Makes a job of a submission: looks up what it names, merges the layers of settings, and writes everything at once.

Admission is one transaction: the request's id, the job, its first execution, and the work item's new state.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.agent.engines import ENGINES
from services.agent.limits import Limits, lowered
from services.agent.providers import ModelProvider
from services.agent.settings import DEFAULTS, AgentSettings, CommandEngine, names_only, overlay, with_secrets_apart
from services.common.db.columns import microseconds
from services.common.errors import NotFound
from services.common.ids import new_id
from services.gateway import scope
from services.gateway.catalog.store import (
    PROJECTS,
    REPOSITORIES,
    TEMPLATES,
    WORK_ITEMS,
    WORKERS,
    Hold,
    Resource,
    ResourceTable,
)
from services.gateway.cells.own import OwnCell
from services.gateway.jobs import floors
from services.gateway.jobs.allowances import allowances_of, check_agent, most_of_all
from services.gateway.jobs.kinds import JobKind, Kinds, load_kinds
from services.gateway.jobs.prompt import compose_task
from services.gateway.jobs.providers import check_providers
from services.gateway.jobs.submission import JobSubmission, check_submission
from services.gateway.ledger.executions import cell_of_snapshot, new_execution
from services.gateway.ledger.fleet import choices_to_columns, members
from services.gateway.ledger.inputs import write_files
from services.gateway.ledger.labels import write_labels
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.rows import job_view
from services.gateway.ledger.scheduling import DEFAULT_AGEING_SECONDS, turn_of
from services.gateway.ledger.work_items import occupy
from services.gateway.schema import idempotency
from services.gateway.schema.clock import NOW
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.jobs import executions, jobs
from services.gateway.values.catalog import Project, Repository, Template, Worker, WorkItem
from services.gateway.values.jobs import JobView
from services.gateway.values.principal import with_caller
from services.lifecycle.model.floor import NO_FLOOR, Floor, bound_policy
from services.lifecycle.model.job_spec import InputFile, JobSpec, Replay
from services.lifecycle.model.policy import Checkpoints, Policy, complete_policy
from services.lifecycle.model.states import JobState, Purpose
from services.lifecycle.model.value import dump


@dataclass(frozen=True, slots=True)
class _References:
    """What a submission names, as it is in the catalogue now."""

    project: Project
    worker: Worker | None
    template: Template | None
    work_item: WorkItem | None
    repository: Repository | None
    related: tuple[WorkItem, ...]


_TIME: Final = select(NOW)
_NEW_JOB: Final = insert(jobs)
_NEW_EXECUTION: Final = insert(executions)


class Admission:
    """Admits jobs. `agent_command` and `agent_model` are for jobs whose settings name no command or no model.

    `own_providers` answer agents on this cell, by its environment; None: it is not known whether any do.
    `tries` has the most attempts and rounds that a job may have, whatever floors are waived.
    `own_cell` knows what its node allows; None: nothing is known of that.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        notifier: JobNotifier,
        agent_command: str,
        agent_model: str = "",
        kinds: Kinds | None = None,
        *,
        tries: Floor = NO_FLOOR,
        ageing_seconds: float = DEFAULT_AGEING_SECONDS,
        own_providers: Sequence[ModelProvider] | None = None,
        own_cell: OwnCell | None = None,
    ) -> None:
        self._engine = engine
        self._notifier = notifier
        self.kinds = load_kinds() if kinds is None else kinds
        self._command = agent_command
        self._model = agent_model
        self._tries = tries
        self._ageing_seconds = ageing_seconds
        self._own_providers = own_providers
        self._own_cell = own_cell

    @property
    def has_agent(self) -> bool:
        """True when a job whose settings name no command still has one: the default."""
        return bool(self._command.strip())

    async def admit(self, submission: JobSubmission, key: IdempotencyKey | None) -> JobView:
        """Write a job, PENDING; for a request that was made before, return the job that it made.

        The submission's kind must be one of `kinds`.
        Raises NotFound for what the submission names, Invalid for what can be checked only after all settings are
        merged, FailedPrecondition (WORK_ITEM_BUSY), AlreadyExists (REQUEST_ID_REUSED), PermissionDenied (ROLE_REQUIRED)
        for a waiver of floors, and what check_agent does.
        """
        job_id = new_id("job")
        refusal = await self._own_cell.remote_refusal(submission.repository_id) if self._own_cell else None
        async with self._engine.begin() as connection:
            earlier = await idempotency.claim(connection, key, await _project_of(connection, submission), job_id)
            if earlier is not None:
                return await job_view(connection, earlier)
            references = await _look_up(connection, submission)
            if refusal is not None:
                raise refusal
            if submission.waive_floors:
                floors.check_waiver()
            if references.work_item is not None:
                await occupy(connection, references.work_item.work_item_id)
            create_time = (await connection.execute(_TIME)).scalar_one()
            fleet = await members(connection)
            kind = self.kinds[submission.kind]
            below = _policy_below(references, kind)
            agent = self._agent(references, submission.agent, most_of_all(allowances_of(fleet)))
            spec = self._spec(job_id, submission, references, (agent, below), create_time)
            asked = _asked(references.work_item, submission)
            beyond = chain(floors.violations(spec, *asked), floors.tries_violations(asked[1], self._tries))
            asked_below = below.checkpoints or Checkpoints()
            check_submission(spec, submission, kind, asked_below=asked_below, of_floors=beyond)
            check_agent(spec.agent, fleet, self._own_cell.images(fleet) if self._own_cell else None)
            if spec.replay is None:
                await check_providers(connection, spec, self._own_providers)
            await _write(connection, _without_secrets(spec), spec.agent.secrets, self._ageing_seconds)
            await write_labels(connection, job_id, spec.labels)
            await write_files(connection, job_id, submission.files, submission.recording)
            view = await job_view(connection, job_id, brief=True)  # nothing more is recorded of a new one
        self._notifier.notify(job_id, work=True)
        return view

    async def is_repeated(self, submission: JobSubmission, key: IdempotencyKey | None) -> bool:
        """Return True for a request that was made before. Raises AlreadyExists (REQUEST_ID_REUSED)."""
        async with self._engine.begin() as connection:
            return await idempotency.find(connection, key, await _project_of(connection, submission)) is not None

    def _spec(
        self,
        job_id: str,
        submission: JobSubmission,
        references: _References,
        merged: tuple[AgentSettings, Policy[None]],
        create_time: datetime,
    ) -> JobSpec:
        work_item, repository, (agent, below) = references.work_item, references.repository, merged
        policy = overlay(overlay(below, work_item.policy) if work_item else below, submission.policy)
        branch = f"ticket-{work_item.work_item_id}" if work_item else f"boatyard/{job_id}"
        spec = JobSpec(
            job_id=job_id,
            project_id=references.project.project_id,
            kind=submission.kind,
            priority=submission.priority,
            prompt=submission.prompt,
            task=compose_task(
                submission.prompt,
                work_item,
                references.related,
                files=[file.name for file in submission.files],
                has_data=bool(submission.data),
            ),
            create_time=create_time,
            repository_id=repository.repository_id if repository else "",
            revision=submission.revision or (repository.default_revision if repository else b""),
            snapshot_id=submission.snapshot_id,
            branch=(submission.branch or branch.encode()) if repository else b"",
            worker_id=submission.worker_id,
            worker_name=references.worker.display_name if references.worker else "",
            work_item_id=submission.work_item_id,
            template_id=references.template.template_id if references.template else "",
            agent=agent,
            policy=bound_policy(complete_policy(policy), self._tries),
            labels=submission.labels,
            not_before=submission.not_before if submission.delay is None else create_time + submission.delay,
            files=tuple(InputFile(file.name, len(file.data)) for file in submission.files),
            data=submission.data,
            replay=None if submission.replay is None else Replay(submission.replay, len(submission.recording)),
            waive_floors=submission.waive_floors,
            submitters=with_caller(),
        )
        if submission.waive_floors:
            return spec
        return floors.bound(spec, floors.floors_of(references.project, references.template))

    def _agent(self, references: _References, own: AgentSettings, most: Limits) -> AgentSettings:
        """Merge all layers. Defaults come last, as only then the engine is known of which they may be.

        `most` is what some cell lets jobs ask for: nobody has asked for a default, which is therefore lowered to it.
        """
        merged = AgentSettings(secrets=references.project.secrets)
        for layer in (references.template, references.worker, references.work_item):
            if layer is not None:
                merged = overlay(merged, layer.agent)
        merged = overlay(merged, own)
        # A command chooses its model by itself unless somebody named one, so it does not get the default.
        needs_model = ENGINES[merged.chosen_engine.name].needs_model
        ours = replace(DEFAULTS, engine=CommandEngine(line=self._command), model=self._model if needs_model else None)
        return with_secrets_apart(overlay(lowered(ours, most), merged))


def _policy_below(references: _References, kind: JobKind) -> Policy[None]:
    """Return the merged policy of the layers that only an administrator changes; work item and job override it."""
    policy = kind.policy
    for layer in (references.template, references.worker):
        if layer is not None:
            policy = overlay(policy, layer.policy)
    return policy


def _asked(work_item: WorkItem | None, submission: JobSubmission) -> tuple[AgentSettings, Policy[None]]:
    """Return the merged settings of the layers that whoever may submit may change: floors bind what these ask for."""
    if work_item is None:
        return submission.agent, submission.policy
    return overlay(work_item.agent, submission.agent), overlay(work_item.policy, submission.policy)


async def _project_of(connection: AsyncConnection, submission: JobSubmission) -> str:
    """Return the project of a submission, by its worker if it names none; the worker may have been deleted since."""
    if submission.project_id is not None:
        return submission.project_id
    workers = WORKERS.table.c
    query = select(workers.project_id).where(workers.worker_id == submission.worker_id)
    return (await connection.execute(query)).scalar_one_or_none() or scope.default_project()


async def _look_up(connection: AsyncConnection, submission: JobSubmission) -> _References:
    """Look up what a submission names. Raises NotFound, also for what belongs to another project."""

    async def get(
        table: ResourceTable[Resource], resource_id: str, project_id: str | None, hold: Hold = "share"
    ) -> Resource | None:
        return await table.get(connection, resource_id, project_id, hold=hold) if resource_id else None

    worker = await get(WORKERS, submission.worker_id, submission.project_id)
    project_id = submission.project_id or (worker.project_id if worker else scope.default_project())
    project = await PROJECTS.get(connection, project_id, hold="share")
    template = await get(TEMPLATES, submission.template_id or (worker.template_id if worker else ""), project_id)
    work_item = await get(WORK_ITEMS, submission.work_item_id, project_id, "change")
    repository_id = submission.repository_id or (work_item.repository_id if work_item else "")
    repository = await get(REPOSITORIES, repository_id, project_id)
    related = await _related(connection, work_item) if work_item else ()
    return _References(project, worker, template, work_item, repository, related)


async def _related(connection: AsyncConnection, work_item: WorkItem) -> tuple[WorkItem, ...]:
    """Return those of the related work items that still exist."""
    related = []
    for related_id in work_item.related_work_item_ids:
        with suppress(NotFound):
            related.append(await WORK_ITEMS.get(connection, related_id, work_item.project_id))
    return tuple(related)


def _without_secrets(spec: JobSpec) -> JobSpec:
    """Return the job as it is stored and shown: with the names of its secrets."""
    return replace(spec, agent=replace(spec.agent, secrets=names_only(spec.agent.secrets)))


async def _write(connection: AsyncConnection, spec: JobSpec, secrets: Mapping[str, str], ageing_seconds: float) -> None:
    execution_id = new_id("exec")
    since = max(spec.create_time, spec.not_before or spec.create_time)
    job = {
        "job_id": spec.job_id,
        "project_id": spec.project_id,
        "kind": spec.kind,
        "worker_id": spec.worker_id,
        "work_item_id": spec.work_item_id,
        "repository_id": spec.repository_id,
        "template_id": spec.template_id,
        "engine": spec.agent.chosen_engine.name,
        **choices_to_columns(spec.agent),
        "priority": spec.priority,
        "definition": dump(spec),
        "secrets": secrets,
        "state": JobState.PENDING,
        "reason": "",
        "message": "",
        "revision": 1,
        "cancel_requested": False,
        "attempt": 1,
        "last_attempt": spec.policy.max_attempts,
        "execution_id": execution_id,
        "snapshot_id": "",
        "turn": turn_of(spec.priority, since, ageing_seconds),
        "wake_time": 0 if spec.not_before is None else microseconds(spec.not_before),
        "bound_cell_id": await cell_of_snapshot(connection, spec.snapshot_id),
        "fence": 0,
        "cell_id": "",
        "held": False,
        "lease_until": 0,
        "create_time": spec.create_time,
    }
    await connection.execute(_NEW_JOB, job)
    row = new_execution(execution_id, spec.job_id, 1, Purpose.AGENT) | {"create_time": spec.create_time}
    await connection.execute(_NEW_EXECUTION, row)
