"""Queues that run jobs which do nothing: ours, a bare table, and Procrastinate, each behind the same four methods."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol

import aiosqlite
import procrastinate
import psycopg
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.kit.nodes import NoOpAgents, idle_nodes
from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.submission import JobSubmission
from services.gateway.jobs.wire import job_document
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.ledger.sql_ledger import SqlLedger
from services.gateway.schema.jobs import LIVE, jobs
from services.lifecycle.driver import Driver
from services.lifecycle.nodes import Nodes

AT_ONCE = 20
DRAFT = JobSubmission(project_id="default", prompt="Do nothing.", labels={"bench": "queue"})


class Queue(Protocol):
    """A queue with one process that runs AT_ONCE jobs at once; `count` jobs have started."""

    count: int

    async def submit(self) -> None:
        """Put a job into the queue."""

    def working(self) -> "contextlib.AbstractAsyncContextManager[None]":
        """Take jobs and run them inside the block."""

    async def until_started(self, number: int) -> float:
        """Wait until `number` jobs in all have started; return when (time.perf_counter)."""

    async def until_done(self) -> None:
        """Wait until no job is left."""


class Starts:
    """Counts the jobs that have started."""

    def __init__(self) -> None:
        self.count = 0
        self._at = 0.0
        self._more = asyncio.Event()

    def began(self, _job: object = None) -> None:
        self.count += 1
        self._at = time.perf_counter()
        self._more.set()

    async def until_started(self, number: int) -> float:
        while self.count < number:
            self._more.clear()
            await self._more.wait()
        return self._at


class Ours(Starts):
    """The ledger, and the driver as a gateway runs it, on node services that answer at once."""

    def __init__(self, engine: AsyncEngine, nodes: Nodes) -> None:
        super().__init__()
        self.engine = engine
        self.notifier = JobNotifier()
        self.store = JobStore(engine, self.notifier)
        self.admission = Admission(engine, self.notifier, "true")
        self.ledger = SqlLedger(engine, "bench", self.notifier, job_document)
        self._nodes = nodes

    async def submit(self) -> None:
        await self.admission.admit(DRAFT, None)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        driver = Driver(self.ledger, self._nodes, capacity=AT_ONCE)
        self.notifier.call_on_work(driver.wake)
        async with _beside(driver.run()):
            yield

    async def until_done(self) -> None:
        while await self._count() > 0:
            await asyncio.sleep(0.02)

    async def _count(self) -> int:
        async with self.engine.begin() as connection:
            left = await connection.execute(select(func.count()).where(jobs.c.state.in_(LIVE)))
            return left.scalar_one()


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Ours]:
    agents = NoOpAgents()  # type: ignore[abstract] # a job calls no more
    engine = open_database(url)
    try:
        await migrate(engine, "services.gateway.migrations")
        async with idle_nodes(agents) as nodes:
            queue = Ours(engine, nodes)
            agents.on_start = queue.began
            await queue.ledger.take_over_own("bench")
            yield queue
    finally:
        await engine.dispose()


class BarePostgres(Starts):
    """A table; a job is taken by FOR UPDATE SKIP LOCKED in one transaction, and marked as done in another."""

    def __init__(self, submitting: psycopg.AsyncConnection, listening: psycopg.AsyncConnection, url: str) -> None:
        super().__init__()
        self._submitting, self._listening, self._url = submitting, listening, url
        self._work = asyncio.Event()

    async def submit(self) -> None:
        await self._submitting.execute("INSERT INTO queue (payload) VALUES ('{}')")
        await self._submitting.execute("NOTIFY queue")

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for _ in range(AT_ONCE):
                connection = await stack.enter_async_context(
                    await psycopg.AsyncConnection.connect(self._url, autocommit=True)
                )
                await stack.enter_async_context(_beside(self._work_on(connection)))
            await stack.enter_async_context(_beside(self._listen()))
            yield

    async def _work_on(self, connection: psycopg.AsyncConnection) -> None:
        take = (
            "UPDATE queue SET state = 1 WHERE id = (SELECT id FROM queue WHERE state = 0 ORDER BY id LIMIT 1"
            " FOR UPDATE SKIP LOCKED) RETURNING id"
        )
        while True:
            self._work.clear()
            row = await (await connection.execute(take)).fetchone()
            if row is None:
                await self._work.wait()
                continue
            self.began()
            await connection.execute("UPDATE queue SET state = 2 WHERE id = %s", row)

    async def _listen(self) -> None:
        async for _ in self._listening.notifies():
            self._work.set()

    async def until_done(self) -> None:
        left = "SELECT count(*) FROM queue WHERE state < 2"
        while (await (await self._submitting.execute(left)).fetchone()) != (0,):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def bare_postgres(url: str) -> AsyncIterator[BarePostgres]:
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as submitting,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as listening,
    ):
        await submitting.execute(
            "CREATE TABLE queue (id BIGSERIAL PRIMARY KEY, payload TEXT NOT NULL, state INT NOT NULL DEFAULT 0)"
        )
        await submitting.execute("CREATE INDEX queue_waiting ON queue (id) WHERE state = 0")
        await listening.execute("LISTEN queue")
        yield BarePostgres(submitting, listening, url)


class BareSqlite(Starts):
    """The same on SQLite, where writes wait for one another; `synchronous` is set as for ours."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        super().__init__()
        self._connection = connection
        self._work = asyncio.Event()

    async def submit(self) -> None:
        await self._connection.execute("INSERT INTO queue (payload, state) VALUES ('{}', 0)")
        self._work.set()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for _ in range(AT_ONCE):
                await stack.enter_async_context(_beside(self._work_on()))
            yield

    async def _work_on(self) -> None:
        take = (
            "UPDATE queue SET state = 1"
            " WHERE id = (SELECT id FROM queue WHERE state = 0 ORDER BY id LIMIT 1) RETURNING id"
        )
        while True:
            self._work.clear()
            row = await (await self._connection.execute(take)).fetchone()
            if row is None:
                await self._work.wait()
                continue
            self.began()
            await self._connection.execute("UPDATE queue SET state = 2 WHERE id = ?", row)

    async def until_done(self) -> None:
        left = "SELECT count(*) FROM queue WHERE state < 2"
        while (await (await self._connection.execute(left)).fetchone()) != (0,):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def bare_sqlite(url: str) -> AsyncIterator[BareSqlite]:
    async with aiosqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None) as connection:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=FULL")
        await connection.execute(
            "CREATE TABLE queue (id INTEGER PRIMARY KEY, payload TEXT NOT NULL, state INT NOT NULL)"
        )
        await connection.execute("CREATE INDEX queue_waiting ON queue (id) WHERE state = 0")
        yield BareSqlite(connection)


class Procrastinate(Starts):
    """A Procrastinate task that does nothing."""

    def __init__(self, app: procrastinate.App) -> None:
        super().__init__()
        self._app = app

        @app.task(name="nothing")
        async def nothing() -> None:
            self.began()

        self._defer: Callable[..., Awaitable[object]] = nothing.defer_async

    async def submit(self) -> None:
        await self._defer()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        worker = self._app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False, wait=True)
        async with _beside(worker):
            yield

    async def until_done(self) -> None:
        left = "SELECT count(*) AS n FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        while (await self._app.connector.execute_query_one_async(left))["n"]:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def procrastinate_queue(url: str) -> AsyncIterator[Procrastinate]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, max_size=AT_ONCE))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield Procrastinate(app)


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
