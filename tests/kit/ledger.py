"""Ledgers of several cells on one database, and helpers for the jobs in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import delete, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import Moment
from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from services.gateway.checkpoints.store import CheckpointStore
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.submission import JobSubmission
from services.gateway.jobs.wire import job_document
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.catalog import projects
from services.gateway.schema.cells import cells
from services.gateway.schema.checkpoints import checkpoints
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sealing import use_keys
from services.gateway.values.catalog import DEFAULT_PROJECT_ID
from services.gateway.values.jobs import JobView
from services.lifecycle.ledger import Lease
from services.lifecycle.model.checkpoint import Origin, Question
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.states import JobState
from services.lifecycle.model.value import load
from tests.kit.databases import add_database, ring_of


@dataclass
class Books:
    """One database, and the stores and ledgers that use it."""

    engine: AsyncEngine
    notifier: JobNotifier = field(default_factory=JobNotifier)

    @property
    def store(self) -> JobStore:
        return JobStore(self.engine, self.notifier)

    @property
    def checkpoints(self) -> CheckpointStore:
        return CheckpointStore(self.engine, self.notifier)

    async def cell(self, name: str, lease_seconds: float = 60.0, **settings: float) -> SqlLedger:
        """Return the ledger of a cell that has just started."""
        ledger = SqlLedger(self.engine, name, self.notifier, job_document, lease_seconds=lease_seconds, **settings)
        await ledger.take_over_own("host")
        return ledger

    async def admit(self, prompt: str = "Do it.", **fields: object) -> JobView:
        submission = JobSubmission(**{"project_id": "default", "prompt": prompt, **fields})  # type: ignore[arg-type]
        return await Admission(self.engine, self.notifier, "true").admit(submission, None)


@asynccontextmanager
async def books(url: str) -> AsyncIterator[Books]:
    """Make the tables and open the ledger's database."""
    engine = open_database(url)
    if engine.dialect.name == "sqlite":
        add_database(Path(str(engine.url.database)), "gateway")
    try:
        await migrate(engine, "services.gateway.migrations")
        use_keys(engine, ring_of(engine.url))
        yield Books(engine)
    finally:
        await engine.dispose()


async def claimed(ledger: SqlLedger) -> Lease:
    """Claim a job, which must exist."""
    lease = await ledger.claim()
    assert lease is not None
    return lease


async def clear(book: Books) -> None:
    """Delete everything but the default project."""
    async with book.engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not projects:
                await connection.execute(delete(table))
        await connection.execute(delete(projects).where(projects.c.project_id != DEFAULT_PROJECT_ID))
        await connection.execute(update(projects).values(max_running_jobs=0))


async def expire_leases(book: Books) -> None:
    """Make every lease expire."""
    async with book.engine.begin() as connection:
        await connection.execute(update(jobs).values(lease_until=now() - 1))


async def set_job(book: Books, job_id: str, **values: object) -> None:
    """Set columns of a job's row."""
    async with book.engine.begin() as connection:
        await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(**values))


def question(lease: Lease, name: str = "push", seconds: float = 3600, *, takes_changes: bool = True) -> Question:
    """Make a question about a lease's execution, with a time limit in seconds."""
    return Question(name, Origin.POLICY, "May it go on?\0", lease.execution_id, seconds, takes_changes=takes_changes)


async def park(book: Books, lease: Lease, seconds: float) -> None:
    """Make a job wait for an answer, for `seconds`."""
    until = now() + round(seconds * 1e6)
    await set_job(book, lease.job_id, state=JobState.AWAITING_APPROVAL, held=False, lease_until=0, wake_time=until)


async def expire_checkpoints(book: Books) -> None:
    """Make every question expire."""
    past = type_coerce(now() - 1, Moment)
    async with book.engine.begin() as connection:
        await connection.execute(update(checkpoints).values(expire_time=past))
        await connection.execute(update(jobs).where(jobs.c.state == JobState.AWAITING_APPROVAL).values(wake_time=now()))


async def age_heartbeat(book: Books, cell_id: str, seconds: float) -> None:
    """Set a cell's last heartbeat to `seconds` ago."""
    since = type_coerce(now() - round(seconds * 1e6), Moment)
    async with book.engine.begin() as connection:
        await connection.execute(update(cells).where(cells.c.cell_id == cell_id).values(beat_time=since))


async def finish_given_up(ledger: SqlLedger) -> None:
    """Claim a job that cannot be tried again, and end it with its recorded outcome, as a driver does."""
    lease = await claimed(ledger)
    await ledger.finish(lease, load(Outcome, (await ledger.attempt(lease)).stages["error"].result))
