"""The values of gauges, and of counters that the database has, in SQL."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent.usage import UsageSum
from services.common.db.columns import as_number
from services.gateway.cost.store import usage_by_series
from services.gateway.ledger.budgets.uses import uses_by_budget
from services.gateway.ledger.questions import IS_OPEN
from services.gateway.ledger.totals import Tally, count_all
from services.gateway.schema.cells import cells
from services.gateway.schema.checkpoints import checkpoints
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import IS_LIVE, IS_RUNNING, PENDING, jobs
from services.gateway.values.budgets import BudgetUse

_SECOND = 1e6


@dataclass(frozen=True, slots=True)
class GaugeReadings:
    """The values of all gauges, and what counters of the database have.

    Jobs are counted by kind and state; seconds are 0.0 when nothing waits.
    """

    jobs: dict[tuple[str, str], int]
    waiting: int
    longest_wait_seconds: float
    running_here: int
    open_questions: int
    beat_age_seconds: float
    tally: Tally
    budgets: Mapping[str, BudgetUse]
    """What is spent of each budget in its present period, by everybody whom it is for together."""
    usage: dict[tuple[str, str, str], UsageSum]
    """By project, provider and model."""


class GaugeStore:
    """Reads the values for one cell."""

    def __init__(self, engine: AsyncEngine, cell_id: str) -> None:
        self._engine = engine
        self._cell_id = cell_id

    async def read(self) -> GaugeReadings:
        """Read all values in one transaction."""
        by_kind = select(jobs.c.kind, jobs.c.state, func.count()).where(IS_LIVE).group_by(jobs.c.kind, jobs.c.state)
        created = as_number(jobs.c.create_time)
        ready_since = case((jobs.c.wake_time > created, jobs.c.wake_time), else_=created)
        ready = select(func.count(), now() - func.min(ready_since)).where(
            IS_LIVE, jobs.c.state == PENDING, jobs.c.wake_time <= now()
        )
        running_here = select(func.count()).where(IS_RUNNING, jobs.c.cell_id == self._cell_id)
        open_questions = select(func.count()).select_from(checkpoints).where(IS_OPEN)
        beat_age = select(now() - as_number(cells.c.beat_time)).where(cells.c.cell_id == self._cell_id)
        async with self._engine.begin() as connection:
            live = {(kind, state): int(count) for kind, state, count in (await connection.execute(by_kind)).all()}
            waiting, longest = (await connection.execute(ready)).one()
            running = (await connection.execute(running_here)).scalar_one()
            questions = (await connection.execute(open_questions)).scalar_one()
            age = (await connection.execute(beat_age)).scalar_one_or_none()
            tally = await count_all(connection)
            uses = await uses_by_budget(connection)
            usage = await usage_by_series(connection)
        waited, beaten = (longest or 0) / _SECOND, (age or 0) / _SECOND
        return GaugeReadings(live, waiting, waited, running, questions, beaten, tally, uses, usage)
