"""The lease as a model (docs/decisions/0015): whatever happens in whatever order, its invariants hold.

Two cells claim, lose, park, retry and end the jobs of a project that may have two running at once, while others cancel
and retry them. After each step the rows are compared with the model, which says what no step may ever do.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from services.common.errors import FailedPrecondition
from services.gateway.catalog.store import PROJECTS, CatalogStore
from services.gateway.jobs.retries import Retries
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.jobs import IS_QUEUED, executions, jobs
from services.gateway.values.catalog import Project
from services.lifecycle.ledger import Lease, LeaseLost
from services.lifecycle.model.checkpoint import Origin, Question
from services.lifecycle.model.outcome import Failure, Outcome, Retry
from services.lifecycle.model.output import ExecutionNote
from services.lifecycle.model.states import ExecutionState, JobState, Purpose
from tests.kit.ledger import Books, clear, expire_leases

LIMIT = 2
PROJECT = "limited"
FAILURE = Failure("NODE_LOST", "it is away")
ANYBODY = ("admit", "expire", "wake", "cancel", "retry by a person", "restart a", "restart b", "claim a", "claim b")
OWNER = ("begin", "note", "park", "retry", "finish", "fail")


@dataclass
class Model:
    """What was last seen of each job, from which its rows may only advance. `leases` are all that were ever granted."""

    book: Books
    cells: dict[str, SqlLedger] = field(default_factory=dict)
    leases: list[tuple[str, Lease]] = field(default_factory=list)
    fences: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    steps: int = 0

    async def anybody(self, action: str) -> None:
        match action.split():
            case ["admit"]:
                await self.book.admit(project_id=PROJECT)
            case ["expire"]:
                await expire_leases(self.book)
            case ["wake"]:
                async with self.book.engine.begin() as connection:
                    await connection.execute(update(jobs).where(IS_QUEUED).values(wake_time=0))
            case ["restart", name]:
                self.cells[name] = await self.book.cell(name)
            case ["claim", name]:
                lease = await self.cells[name].claim()
                if lease is not None:
                    assert lease.fence == self.fences[lease.job_id] + 1, "a fence grows by one with each claim"
                    self.fences[lease.job_id] = lease.fence
                    self.leases.append((name, lease))
            case ["cancel"] if self.leases:
                await _may_be_refused(self.book.store.cancel_job(self.leases[0][1].job_id))
            case ["retry", *_] if self.leases:
                retries = Retries(self.book.engine, self.book.notifier)
                await _may_be_refused(retries.retry(self.leases[-1][1].job_id, from_snapshot=False, key=None))

    async def owner(self, action: str, which: int) -> None:
        """Write as a holder of a lease, or as one that has lost it without knowing."""
        if not self.leases:
            return
        name, lease = self.leases[which % len(self.leases)]
        before = await self._row(lease.job_id)
        self.steps += 1
        write = {
            "begin": lambda: self.cells[name].begin_stage(lease, f"stage-{self.steps}"),
            "note": lambda: self.cells[name].note(lease, ExecutionNote(lease.execution_id, Purpose.AGENT)),
            "park": lambda: self.cells[name].park(
                lease, Question(f"ask-{self.steps}", Origin.POLICY, "May it?", lease.execution_id, 3600.0)
            ),
            "retry": lambda: self.cells[name].retry(lease, Retry(FAILURE, seconds=3600.0)),
            "finish": lambda: self.cells[name].finish(lease, Outcome(JobState.SUCCEEDED)),
            "fail": lambda: self.cells[name].finish(lease, Outcome(JobState.FAILED, FAILURE)),
        }[action]
        holds = (before.fence, before.state) == (lease.fence, JobState.RUNNING)
        try:
            await write()
        except LeaseLost:
            assert not holds, f"{action}: the owner was refused"
            assert await self._row(lease.job_id) == before
            return
        if not holds:  # it may give back again what it has already given back, which changes nothing
            assert action not in {"begin", "note"}, f"{action}: somebody wrote who holds no lease"
            assert before.fence == lease.fence
            assert await self._row(lease.job_id) == before

    async def check(self) -> None:
        """Compare all rows with the model."""
        async with self.book.engine.begin() as connection:
            rows = (await connection.execute(select(jobs))).all()
            runs = (await connection.execute(select(executions))).all()
        assert sum(row.state == JobState.RUNNING for row in rows) <= LIMIT
        for row in rows:
            state = JobState(row.state)
            agents = [run for run in runs if run.job_id == row.job_id]
            live = [run.execution_id for run in agents if not ExecutionState(run.state).is_final]
            assert row.fence == self.fences[row.job_id], "no claim, no other fence"
            assert not (row.held and state is not JobState.RUNNING)
            assert (row.end_time is not None) is state.is_final
            assert self.attempts[row.job_id] <= row.attempt <= row.last_attempt
            assert sorted(run.attempt for run in agents) == list(range(1, row.attempt + 1)), "one agent an attempt"
            assert live == ([] if state.is_final else [row.execution_id]), "only the last attempt lives"
            self.attempts[row.job_id] = row.attempt

    async def _row(self, job_id: str):  # type: ignore[no-untyped-def] # a row of jobs
        async with self.book.engine.begin() as connection:
            return (await connection.execute(select(jobs).where(jobs.c.job_id == job_id))).one()


ACTIONS = st.lists(
    st.sampled_from(ANYBODY) | st.tuples(st.sampled_from(OWNER), st.sampled_from([-1, -2, 0])),
    min_size=10,
    max_size=40,
)


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes, because each step is a transaction
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(actions=ACTIONS)
async def test_the_invariants_of_the_lease_hold_after_every_step(
    book: Books, actions: list[str | tuple[str, int]]
) -> None:
    await clear(book)
    created = (await book.admit()).create_time
    await clear(book)
    limited = Project(project_id=PROJECT, create_time=created, max_running_jobs=LIMIT)
    await CatalogStore(book.engine).create(PROJECTS, limited)
    model = Model(book)
    for name in ("a", "b"):
        await model.anybody(f"restart {name}")
    for action in ["admit", "claim a", "admit", "claim b", "admit", *actions]:
        if isinstance(action, str):
            await model.anybody(action)
        else:
            await model.owner(*action)
        await model.check()


async def _may_be_refused(call) -> None:  # type: ignore[no-untyped-def] # an awaitable
    """Await a call that may be refused because of the state of the job."""
    with suppress(FailedPrecondition):
        await call
