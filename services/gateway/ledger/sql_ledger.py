"""The driver's ledger in SQL: leases by the database's clock, every write conditional on the fence.

A cell that restarts has its own leases back at once: `take_over_own` is called under the cell's lock.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import and_, bindparam, exc, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.agent.providers import ModelProvider
from services.common.errors import Unavailable
from services.common.fence import Fence
from services.gateway.ledger.attempts import retry_later
from services.gateway.ledger.budgets import reservations
from services.gateway.ledger.claim_queries import ANY_JOB, ClaimFilter
from services.gateway.ledger.claiming import Claimer, lease_end
from services.gateway.ledger.ending import end_job
from services.gateway.ledger.executions import note_of_agent, running_stage, write_note
from services.gateway.ledger.gates import open_own_gates
from services.gateway.ledger.hook_calls import write_call
from services.gateway.ledger.hooks import key_of
from services.gateway.ledger.inputs import job_context
from services.gateway.ledger.labels import add_labels
from services.gateway.ledger.notifier import MODELS, JobNotifier
from services.gateway.ledger.parking import park
from services.gateway.ledger.providers import providers_of
from services.gateway.ledger.questions import decision_on
from services.gateway.ledger.rows import job_row, job_view
from services.gateway.ledger.scheduling import DEFAULT_AGEING_SECONDS
from services.gateway.ledger.stages import record_begin, record_ends, recorded_stages
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import IS_RUNNING, jobs, stages
from services.gateway.schema.sql import insert_if_absent
from services.gateway.values.jobs import JobView
from services.lifecycle.ledger import Attempt, Beat, Document, Lease, LeaseLost, LedgerUnavailable, StageEnd
from services.lifecycle.model.budgets import Granting, ModelNeed, Settlement
from services.lifecycle.model.checkpoint import Decision, Question
from services.lifecycle.model.hook_calls import HookCall
from services.lifecycle.model.outcome import Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import JobState

_IS_HELD: Final = and_(jobs.c.job_id == bindparam("of_job"), jobs.c.fence == bindparam("of_fence"), IS_RUNNING)
_HELD: Final = select(jobs.c.job_id).where(_IS_HELD)
_LOOK_SECONDS: Final = 0.1
"""How often a request that waits is looked at again at most."""
_CHANGE: Final = update(jobs).where(_IS_HELD).values(revision=jobs.c.revision + 1)

RESERVE_WAIT_SECONDS: Final = 3.0
"""How long a gateway's ledger waits for a better answer: within the deadline of a coordinator's call."""


class SqlLedger:
    """Implements services.lifecycle.ledger.Ledger for one cell. `document` writes a job as JSON for hooks."""

    def __init__(
        self,
        engine: AsyncEngine,
        cell_id: str,
        notifier: JobNotifier,
        document: Callable[[JobView], bytes],
        *,
        lease_seconds: float = 20.0,
        ageing_seconds: float = DEFAULT_AGEING_SECONDS,
        is_of_coordinator: bool = False,
        reserve_wait_seconds: float = 0.0,
    ) -> None:
        """A ledger that `is_of_coordinator` gives away those providers of models alone that are for coordinators.

        `reserve_wait_seconds` is how long `reserve` may wait for a better answer.
        """
        self._engine = engine
        self._cell_id = cell_id
        self._notifier = notifier
        self._document = document
        self._is_of_coordinator = is_of_coordinator
        self._reserve_wait_seconds = reserve_wait_seconds
        self._lease_seconds = self._longest_lease = lease_seconds
        self._claimer = Claimer(cell_id, lease_seconds, ageing_seconds)
        self._is_away = False
        self._back_since = float("-inf")  # monotonic

    @property
    def lease_seconds(self) -> float:
        return self._lease_seconds

    async def take_over_own(self, host: str) -> int:
        """Make the jobs that this cell held before it was restarted claimable by this cell only; return how many.

        MUST be called before the first claim, by the one process that holds the cell's lock.
        """
        async with self._transaction() as connection:
            row = {"cell_id": self._cell_id, "host": host, "start_time": NOW, "beat_time": NOW}
            if not await insert_if_absent(connection, cells, row):
                this_cell = update(cells).where(cells.c.cell_id == self._cell_id)
                await connection.execute(this_cell.values(host=host, start_time=NOW, beat_time=NOW))
            own = update(jobs).where(jobs.c.cell_id == self._cell_id, jobs.c.state == JobState.RUNNING)
            result = await connection.execute(own.values(held=False, lease_until=self._until()))
            await open_own_gates(connection, self._cell_id)
            return result.rowcount

    def takes_over(self) -> bool:
        """Return True when the jobs of cells that have lost them may be taken.

        While the database was away no cell could beat, and no coordinator could while its gateway was away. Who is
        alive is known only after all have had the time to beat.
        """
        return not self._is_away and time.monotonic() - self._back_since > self._longest_lease

    def wait_for_others(self) -> None:
        """Take nothing from others for the longest lease: those who beat through this gateway could not until now."""
        self._back_since = time.monotonic()

    async def claim(self, claim_filter: ClaimFilter = ANY_JOB) -> Lease | None:
        """Claim one job: see Ledger. `claim_filter` is for a cell that cannot run every job."""
        async with self._transaction() as connection:
            lease = await self._claimer.claim(connection, claim_filter, takes_over=self.takes_over())
        if lease is not None:
            self._notifier.notify(lease.job_id)
        return lease

    async def beat(self, leases: Collection[Lease]) -> Beat:
        return await self.prolong([lease.token for lease in leases])

    async def prolong(self, fences: Collection[Fence]) -> Beat:
        """Renew leases of which only the fences are known: see Ledger.beat."""
        pairs = [(fence.job_id, fence.number) for fence in fences]
        held = update(jobs).where(
            tuple_(jobs.c.job_id, jobs.c.fence).in_(pairs),
            jobs.c.cell_id == self._cell_id,
            jobs.c.state == JobState.RUNNING,
            jobs.c.held,
        )
        prolonged = held.values(lease_until=self._until()).returning(jobs.c.job_id, jobs.c.cancel_requested)
        async with self._transaction() as connection:
            rows = (await connection.execute(prolonged)).all() if pairs else ()
            own = update(cells).where(cells.c.cell_id == self._cell_id)
            await connection.execute(own.values(beat_time=NOW, lease_ms=round(self._lease_seconds * 1000)))
            longest = (await connection.execute(select(func.max(cells.c.lease_ms)))).scalar_one_or_none() or 0
        self._longest_lease = max(self._lease_seconds, longest / 1000)
        return Beat(
            held=frozenset(row.job_id for row in rows),
            cancel_requested=frozenset(row.job_id for row in rows if row.cancel_requested),
        )

    async def attempt(self, lease: Lease) -> Attempt:
        async with self._transaction() as connection:
            await _check_lease(connection, lease)
            recorded = await recorded_stages(connection, lease)
            note = await note_of_agent(connection, lease)
            context = await job_context(connection, lease, on_coordinator=self._is_of_coordinator)
            return Attempt(recorded, note, context)

    async def document(self, lease: Lease, stage: str, outcome: Outcome | None) -> Document:
        """Return the job's document: see Ledger. It is stored as the stage's result until the stage has one."""
        this_stage = running_stage(lease, stage)
        async with self._transaction() as connection:
            await _check_lease(connection, lease)
            row = (await connection.execute(select(stages.c.result, stages.c.start_time).where(*this_stage))).one()
            if row.result:
                return Document(row.result.encode(), row.start_time)
            view = await job_view(connection, lease.job_id)
            if outcome is not None:
                view = replace(view, state=outcome.state)
                if outcome.failure is not None:
                    view = replace(view, reason=outcome.failure.reason, message=outcome.failure.message)
            data = self._document(view)
            await connection.execute(update(stages).where(*this_stage).values(result=data.decode()))
        return Document(data, row.start_time)

    async def signing_key(self, lease: Lease, hook_id: str) -> bytes:
        async with self._transaction() as connection:
            await _check_lease(connection, lease)
            return await key_of(connection, hook_id, lease.job_id)

    async def providers(self, lease: Lease) -> tuple[ModelProvider, ...]:
        spec = lease.spec
        async with self._transaction() as connection:
            await _check_lease(connection, lease)
            return await providers_of(
                connection, spec.project_id, spec.agent.providers, on_coordinator=self._is_of_coordinator
            )

    async def reserve(self, lease: Lease, need: ModelNeed) -> Granting:
        """Reserve: see Ledger. What has to wait is looked at again for a while, as soon as something has changed."""
        until = time.monotonic() + self._reserve_wait_seconds
        with self._notifier.subscribe(MODELS) as changes:
            while True:
                async with self._transaction() as connection:
                    granting = await reservations.reserve(connection, lease, need)
                pause = granting.retry_seconds
                if granting.is_granted or not pause or time.monotonic() + pause > until:
                    return granting
                await asyncio.sleep(_LOOK_SECONDS)
                await changes.wait(max(0.0, pause - _LOOK_SECONDS))

    async def settle(self, lease: Lease, use: Settlement) -> None:
        async with self._transaction() as connection:
            await reservations.settle(connection, lease, use, is_far=self._is_of_coordinator)
        self._notifier.notify_local(MODELS)

    async def record_call(self, lease: Lease, call: HookCall) -> None:
        async with self._writing(lease) as connection:
            await write_call(connection, lease, call)
            if call.labels:
                await add_labels(connection, lease.job_id, call.labels)

    async def execution(self, lease: Lease) -> ExecutionNote:
        """Return what is recorded of the attempt's agent."""
        async with self._transaction() as connection:
            await _check_lease(connection, lease)
            return await note_of_agent(connection, lease)

    async def begin_stage(self, lease: Lease, name: str, ended: Sequence[StageEnd] = ()) -> None:
        async with self._writing(lease) as connection:
            await record_ends(connection, self._cell_id, lease, ended)
            await record_begin(connection, lease, name)

    async def end_stage(self, lease: Lease, ended: StageEnd) -> None:
        async with self._writing(lease) as connection:
            await record_ends(connection, self._cell_id, lease, [ended])

    async def note(self, lease: Lease, note: ExecutionNote) -> None:
        async with self._writing(lease) as connection:
            await write_note(connection, self._cell_id, lease, note)

    async def park(self, lease: Lease, question: Question) -> None:
        async with self._transaction() as connection:
            await park(connection, lease, question)
        self._notifier.notify(lease.job_id)

    async def decision(self, lease: Lease, name: str) -> Decision | None:
        async with self._transaction() as connection:
            await _check_lease(connection, lease)
            return await decision_on(connection, lease, name)

    async def retry(self, lease: Lease, retry: Retry, ended: Sequence[StageEnd] = ()) -> None:
        async with self._transaction() as connection:
            row = await job_row(connection, lease.job_id, locked=True)
            if row.fence != lease.fence or row.state == JobState.AWAITING_APPROVAL:
                raise LeaseLost
            if row.state == JobState.RUNNING:  # else it is done already, and the response was lost
                await record_ends(connection, self._cell_id, lease, ended)
                await retry_later(connection, self._cell_id, row, retry)
        self._notifier.notify(lease.job_id)

    async def finish(self, lease: Lease, outcome: Outcome, ended: Sequence[StageEnd] = ()) -> None:
        async with self._transaction() as connection:
            row = await job_row(connection, lease.job_id, locked=True)
            state = JobState(row.state)
            if row.fence != lease.fence or not (state is JobState.RUNNING or state.is_final):
                raise LeaseLost  # also when it was given back to wait: nobody has taken it since, but it is not over
            if not state.is_final:
                await record_ends(connection, self._cell_id, lease, ended)
                await end_job(connection, row, outcome)
        self._notifier.notify(lease.job_id)

    def _until(self) -> Any:  # noqa: ANN401 - an SQL expression
        return lease_end(self._lease_seconds)

    @asynccontextmanager
    async def _writing(self, lease: Lease) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that is conditional on the lease, and counts as a change of the job."""
        async with self._transaction() as connection:
            if (await connection.execute(_CHANGE, _of_lease(lease))).rowcount == 0:
                raise LeaseLost
            yield connection
        self._notifier.notify(lease.job_id)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (Unavailable, exc.TimeoutError) as error:  # the database is away, or every connection waits for it
            self._is_away = True
            raise LedgerUnavailable(str(error)) from error
        if self._is_away:
            self._is_away, self._back_since = False, time.monotonic()


async def _check_lease(connection: AsyncConnection, lease: Lease) -> None:
    if (await connection.execute(_HELD, _of_lease(lease))).first() is None:
        raise LeaseLost


def _of_lease(lease: Lease) -> Mapping[str, Any]:
    return {"of_job": lease.job_id, "of_fence": lease.fence}
