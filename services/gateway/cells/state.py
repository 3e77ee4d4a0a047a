"""The state of the queue and of the database, in SQL."""

import statistics
import time

from sqlalchemy import case, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.db.columns import as_number, from_microseconds
from services.common.db.migrate import look
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import jobs
from services.gateway.schema.metadata import MIGRATIONS
from services.gateway.values.cells import Client, DatabaseState, Queue
from services.lifecycle.model.states import JobState

_PROBES = 5


class StateStore:
    """Reads the state of the queue and of the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def queue(self) -> Queue:
        """Return the number of jobs by state, and since when the oldest could have begun."""
        count_by_state = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        # A job could have begun since its wake time, but not before it was created.
        created = as_number(jobs.c.create_time)
        ready_since = case((jobs.c.wake_time > created, jobs.c.wake_time), else_=created)
        oldest_query = select(func.min(ready_since)).where(jobs.c.state == JobState.PENDING, jobs.c.wake_time <= now())
        async with self._engine.begin() as connection:
            counts = {state: int(count) for state, count in (await connection.execute(count_by_state)).all()}
            oldest = (await connection.execute(oldest_query)).scalar_one_or_none()
        return Queue(counts, None if oldest is None else from_microseconds(int(oldest)))

    async def database(self) -> DatabaseState:
        """Return the database's kind, version, schema, latency and clients."""
        kind = self._engine.dialect.name
        schema, faults = await look(self._engine, MIGRATIONS)
        async with self._engine.begin() as connection:
            times = []
            for _ in range(_PROBES):
                began = time.perf_counter()
                await connection.execute(text("SELECT 1"))
                times.append(time.perf_counter() - began)
            version_query = "SHOW server_version" if kind == "postgresql" else "SELECT sqlite_version()"
            server = (await connection.execute(text(version_query))).scalar_one()
            clients = await _clients(connection) if kind == "postgresql" else ()
        return DatabaseState(kind, str(server), schema, tuple(faults), statistics.median(times), clients)


async def _clients(connection: AsyncConnection) -> tuple[Client, ...]:
    query = text(
        "SELECT application_name, coalesce(host(client_addr), ''), count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return tuple(Client(name, address, count) for name, address, count in (await connection.execute(query)).all())
