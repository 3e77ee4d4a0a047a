"""What coordinators claim, hold and read, in SQL. Each method is one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import Aborted, FailedPrecondition, NotFound
from services.gateway import scope
from services.gateway.catalog.store import PROJECTS, REPOSITORIES, WORK_ITEMS
from services.gateway.coordinators.model import HeldLease, WorkContext, WorkItemTitle
from services.gateway.ledger.attempts import retry_later
from services.gateway.ledger.claim_queries import ClaimFilter
from services.gateway.ledger.claiming import Claimer, with_refusals
from services.gateway.ledger.events import EventStore
from services.gateway.ledger.fleet import members
from services.gateway.ledger.hooks import hooks_in_force
from services.gateway.ledger.inputs import read_secrets
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.questions import write_question
from services.gateway.ledger.rows import job_row, job_view
from services.gateway.ledger.statuses import JobStatuses
from services.gateway.ledger.takes import Takes, takes_to_column
from services.gateway.ledger.timeline import tell
from services.gateway.schema import idempotency
from services.gateway.schema.catalog import work_items
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import NOW, now
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.schema.jobs import executions, jobs, stages
from services.gateway.schema.sql import insert_if_absent
from services.gateway.values.catalog import WorkItemState
from services.gateway.values.cells import Cell, CellKind
from services.gateway.values.checkpoints import Checkpoint
from services.gateway.values.events import NumberedEvent
from services.lifecycle.ledger import PATIENCE_SECONDS, Lease
from services.lifecycle.model.checkpoint import Question
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.outcome import Failure, Retry
from services.lifecycle.model.states import ExecutionState, JobState
from services.lifecycle.model.value import load
from services.lifecycle.orphans import JobStatus

_LEASES = (
    select(jobs, executions.c.cell_id.label("execution_cell_id"), cells.c.kind.label("holder"))
    .join_from(jobs, executions, executions.c.execution_id == jobs.c.execution_id)
    .join(cells, cells.c.cell_id == jobs.c.cell_id, isouter=True)
)

_VERSION = "version"
"""The line of a job's timeline that says what its coordinator's version keeps it from."""
_TITLES = 100
"""How many work items of each state are told."""


class CoordinatorStore:
    """Reads and writes for coordinators. `lease_seconds` is how long a claim lasts without a heartbeat."""

    def __init__(
        self,
        engine: AsyncEngine,
        notifier: JobNotifier,
        events: EventStore,
        *,
        takes_over: Callable[[], bool],
        lease_seconds: float,
        ageing_seconds: float,
    ) -> None:
        self._engine = engine
        self._notifier = notifier
        self._lease_seconds = lease_seconds
        self._ageing_seconds = ageing_seconds
        self._takes_over = takes_over
        self._events = events

    async def enrol(self, cell: Cell, takes: Takes | None = None) -> None:
        """Record a coordinator, unless it is known, and which jobs it takes.

        Raises FailedPrecondition (NOT_A_COORDINATOR).
        """
        row = asdict(cell) | {"start_time": NOW, "beat_time": NOW}
        said = {} if takes is None else {"takes": takes_to_column(takes)}
        async with self._engine.begin() as connection:
            await insert_if_absent(connection, cells, row | said)
            known = select(cells.c.kind, cells.c.takes).where(cells.c.cell_id == cell.cell_id)
            kind, takes_now = (await connection.execute(known)).one()
            if said and takes_now != said["takes"] and kind == CellKind.COORDINATOR:
                await connection.execute(update(cells).where(cells.c.cell_id == cell.cell_id).values(said))
            if kind != CellKind.COORDINATOR:
                raise FailedPrecondition(
                    "NOT_A_COORDINATOR", f"{cell.cell_id!r} is a gateway's cell: use another id", cell.cell_id
                )

    async def claim(self, coordinator_id: str, claim_filter: ClaimFilter, key: IdempotencyKey | None) -> Lease | None:
        """Claim a job; for a repeated request, return the lease of the first one, if it still holds.

        Raises AlreadyExists (REQUEST_ID_REUSED).
        """
        request_ids_of = f"coordinator/{coordinator_id}"
        claimer = Claimer(coordinator_id, self._lease_seconds, self._ageing_seconds)
        async with self._engine.connect() as connection, connection.begin() as transaction:
            lease = await claimer.claim(connection, claim_filter, takes_over=self._takes_over())
            if lease is None:  # the key is not recorded: a repetition may still get a job
                earlier = await idempotency.find(connection, key, request_ids_of)
            else:
                earlier = await idempotency.claim(connection, key, request_ids_of, str(lease.token))
                if earlier is not None:
                    await transaction.rollback()  # gives the job back: the first request has claimed one already
        if earlier is not None:
            return await self._lease_of(coordinator_id, earlier)
        if lease is not None:
            self._notifier.notify(lease.job_id)
        return lease

    async def lease(self, held: HeldLease) -> Lease:
        """Return the lease that a coordinator holds; its job may have ended.

        Raises NotFound, PermissionDenied (PROJECT_NOT_ALLOWED), Aborted (LEASE_LOST).
        """
        async with self._engine.begin() as connection:
            row = await _held_row(connection, held)
        return _lease(row)

    async def context(self, held: HeldLease) -> WorkContext:
        """Return everything that is needed to do a job.

        Raises what `lease` raises; LEASE_LOST also when the job has ended.
        """
        async with self._engine.begin() as connection:
            row = await _held_row(connection, held)
            if row.state != JobState.RUNNING:
                raise lease_lost(held, row.fence)
            view = await job_view(connection, held.job_id)
            order = view.spec
            work_item, related = None, []
            if order.work_item_id:
                work_item = await WORK_ITEMS.get_even_deleted(connection, order.work_item_id)
                for work_item_id in work_item.related_work_item_ids:
                    try:
                        related.append(await WORK_ITEMS.get(connection, work_item_id, order.project_id))
                    except NotFound:  # it has been deleted since
                        continue
            return WorkContext(
                view=view,
                secrets=await read_secrets(connection, held.job_id),
                project=await PROJECTS.get_even_deleted(connection, order.project_id),
                work_item=work_item,
                related=related,
                by_state={state: await _titles(connection, order.project_id, state) for state in WorkItemState},
                repository=await REPOSITORIES.get(connection, order.repository_id) if order.repository_id else None,
                hooks=[
                    hook
                    for hook in await hooks_in_force(connection, order.project_id)
                    if hook.fits(order.template_id, order.kind)
                ],
            )

    async def append(self, held: HeldLease, execution_id: str, events: list[NumberedEvent], *, last: bool) -> int:
        """Store events of a job that is held, or has ended under this lease; return the next event's number.

        An execution that has ended where the coordinator ran it has its last events whoever holds the job now: they
        are nowhere else. Raises what `lease` raises, and what EventStore.append does.
        """
        async with self._engine.begin() as connection:
            try:
                await _held_row(connection, held)
            except Aborted:
                if not await _ran(connection, held, execution_id):
                    raise
            next_sequence = await self._events.append(connection, held.job_id, execution_id, events, last=last)
        self._notifier.notify(held.job_id)
        return next_sequence

    async def ask(self, held: HeldLease, question: Question) -> Checkpoint:
        """Ask a person, once an attempt, while the coordinator keeps the job; return the checkpoint as it is now.

        Raises what `lease` raises; LEASE_LOST also when the job has ended.
        """
        async with self._engine.begin() as connection:
            # Locked, so that the job cannot end meanwhile and leave the question open.
            await job_row(connection, held.job_id, locked=True)
            row = await _held_row(connection, held)
            if row.state != JobState.RUNNING:
                raise lease_lost(held, row.fence)
            checkpoint = await write_question(connection, _lease(row), question)
        self._notifier.notify(held.job_id)
        return checkpoint

    async def cancelled(self, coordinator_id: str) -> frozenset[str]:
        """Return the ids of the jobs that a coordinator holds and whose cancellation is requested."""
        query = select(jobs.c.job_id).where(
            jobs.c.cell_id == coordinator_id,
            jobs.c.state == JobState.RUNNING,
            jobs.c.cancel_requested,
            *scope.within(jobs.c.project_id),
        )
        async with self._engine.begin() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def job_statuses(self, coordinator_id: str, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Return the status of jobs on a coordinator; jobs that are unknown or not allowed are left out."""
        projects = scope.visible()
        if projects is not None:
            visible_ids = select(jobs.c.job_id).where(
                jobs.c.job_id.in_(job_ids), jobs.c.project_id.in_(sorted(projects))
            )
            async with self._engine.begin() as connection:
                job_ids = (await connection.execute(visible_ids)).scalars().all()
        return await JobStatuses(self._engine, coordinator_id).of(job_ids)

    async def give_back(self, coordinator_id: str, refusal: Failure, job_id: str = "") -> None:
        """Let other cells take the jobs, or the one, that a coordinator holds and cannot go on with.

        Those of projects that the caller may not see stay. Where work has begun, or nobody has taken it for long, it
        stays: then the timeline has the refusal.
        """
        is_held = (jobs.c.cell_id == coordinator_id, jobs.c.state == JobState.RUNNING)
        held = select(jobs).where(*is_held, *scope.within(jobs.c.project_id))
        if job_id:
            held = held.where(jobs.c.job_id == job_id)
        async with self._engine.begin() as connection:
            rows = (await connection.execute(held.with_for_update())).all()
            patient = now() - round(PATIENCE_SECONDS * 1_000_000)
            since = (await connection.execute(select(patient))).scalar_one()
            for row in rows:
                of_attempt = (stages.c.job_id == row.job_id, stages.c.attempt == row.attempt)
                has_begun = (await connection.execute(select(stages.c.name).where(*of_attempt).limit(1))).first()
                if has_begun or 0 < row.refused_since < since:
                    await tell(connection, row.job_id, row.attempt, _VERSION, refusal.message)
                else:
                    await retry_later(connection, coordinator_id, row, Retry(refusal, 0, is_refusal=True))
        for row in rows:
            self._notifier.notify(row.job_id, work=True)

    async def _lease_of(self, coordinator_id: str, token: str) -> Lease | None:
        job_id, _, fence = token.partition("/")
        is_held = and_(jobs.c.job_id == job_id, jobs.c.fence == int(fence), jobs.c.cell_id == coordinator_id)
        async with self._engine.begin() as connection:
            row = (await connection.execute(_LEASES.where(is_held, jobs.c.state == JobState.RUNNING))).first()
            if row is None:
                return None
            return await with_refusals(connection, _lease(row), row, coordinator_id, await members(connection))


def lease_lost(held: HeldLease, actual: int | None = None) -> Aborted:
    """Return the error for a coordinator that no longer holds a job; `actual` is the current fence, if known."""
    return Aborted(
        "LEASE_LOST",
        f"job {held.job_id!r} is no longer this coordinator's, or has ended: drop it, and stop what still runs for it",
        expected=str(held.fence),
        actual="" if actual is None else str(actual),
    )


async def _held_row(connection: AsyncConnection, held: HeldLease) -> Row[Any]:
    row = (await connection.execute(_LEASES.where(jobs.c.job_id == held.job_id))).first()
    if row is None:
        if scope.visible() is not None:
            raise scope.not_allowed()
        raise NotFound("job", held.job_id)
    scope.check(row.project_id)
    # A lease that a gateway's own cell holds is refused, whoever names it.
    if (row.fence, row.cell_id, row.holder) != (held.fence, held.coordinator_id, CellKind.COORDINATOR):
        raise lease_lost(held, row.fence)
    return row


async def _ran(connection: AsyncConnection, held: HeldLease, execution_id: str) -> bool:
    """Return whether an execution of the job has ended, and was this coordinator's."""
    query = select(executions.c.state).where(
        executions.c.execution_id == execution_id,
        executions.c.job_id == held.job_id,
        executions.c.cell_id == held.coordinator_id,
    )
    row = (await connection.execute(query)).first()
    return row is not None and ExecutionState(row.state).is_final


async def _titles(connection: AsyncConnection, project_id: str, state: WorkItemState) -> list[WorkItemTitle]:
    """Return the newest of a project's work items in a state."""
    items = work_items.c
    query = (
        select(items.work_item_id, items.title)
        .where(items.project_id == project_id, items.state == state, items.delete_time.is_(None))
        .order_by(items.create_time.desc(), items.work_item_id)
        .limit(_TITLES)
    )
    return [WorkItemTitle(*row) for row in (await connection.execute(query)).all()]


def _lease(row: Row[Any]) -> Lease:
    return Lease(
        row.job_id,
        row.fence,
        row.attempt,
        row.execution_id,
        load(JobSpec, row.definition),
        cancel_requested=row.cancel_requested,
        is_moved=row.execution_cell_id != row.cell_id,
        last_attempt=row.last_attempt,
        snapshot_id=row.snapshot_id,
    )
