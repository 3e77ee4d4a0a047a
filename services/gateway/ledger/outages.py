"""Jobs that wait for a provider of models: one asks it again, and the others follow when that one has not failed.

Nobody has to be told that a provider answers again: the others have their times, which only a failure puts off. Each
project has its own, so that what one learns of a provider, or says of it, holds up no other.
"""

import random
from typing import Final

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.columns import microseconds
from services.gateway.schema.clock import now
from services.gateway.schema.jobs import PENDING, jobs
from services.gateway.schema.outages import model_outages
from services.gateway.schema.sql import insert_if_absent
from services.lifecycle.model.outcome import ModelOutage, Retry

_LONGEST: Final = 20
"""The longest pause, in first ones."""
_PROBE: Final = 2
"""How long one job has the provider to itself, in first pauses: more than an agent takes to find that it is away."""
_FORGOTTEN_AFTER_SECONDS: Final = 3600.0
_SECOND: Final = 1_000_000


async def place_after(connection: AsyncConnection, project_id: str, outage: ModelOutage, retry: Retry) -> int:
    """Return when a job whose attempt has ended by an outage may begin again, in microseconds.

    The first to fail is the next to ask again, and so is who has asked again in vain; those who wait are put off.
    """
    at = int((await connection.execute(select(now()))).scalar_one())
    known, asked_again = await _locked(connection, project_id, outage.provider)
    waiting = (jobs.c.state == PENDING, jobs.c.project_id == project_id, jobs.c.outage_provider == outage.provider)
    failures, next_time = known, asked_again
    if has_asked_again := at >= next_time:
        is_another = retry.is_new_outage or at > next_time + _FORGOTTEN_AFTER_SECONDS * _SECOND
        failures = 1 if is_another else failures + 1
        next_time = at + round(_pause(retry.seconds, failures) * _SECOND)
    if outage.retry_time is not None:
        next_time = max(next_time, microseconds(outage.retry_time))
    others_are_next = exists().where(*waiting, jobs.c.wake_time <= asked_again)
    is_behind = not has_asked_again and (await connection.execute(select(others_are_next))).scalar_one()
    this = update(model_outages).where(
        model_outages.c.project_id == project_id, model_outages.c.provider == outage.provider
    )
    await connection.execute(this.values(failures=failures, next_time=next_time))
    if known and next_time > asked_again:
        later = {"wake_time": jobs.c.wake_time + (next_time - asked_again), "revision": jobs.c.revision + 1}
        await connection.execute(update(jobs).where(*waiting).values(later))
    behind = _PROBE * retry.seconds * random.uniform(1.0, 2.0) if is_behind else 0.0  # noqa: S311 - no secret
    return int(next_time + round(behind * _SECOND))


async def _locked(connection: AsyncConnection, project_id: str, provider: str) -> tuple[int, int]:
    """Return how often a provider has failed in a row and when it is asked again, locked until the transaction ends."""
    key = {"project_id": project_id, "provider": provider}
    await insert_if_absent(connection, model_outages, key | {"failures": 0, "next_time": 0})
    known = select(model_outages.c.failures, model_outages.c.next_time).with_for_update()
    of_provider = (model_outages.c.project_id == project_id, model_outages.c.provider == provider)
    failures, next_time = (await connection.execute(known.where(*of_provider))).one()
    return failures, next_time


def _pause(first: float, failures: int) -> float:
    """Return how many seconds a provider is left alone after it has failed so often in a row."""
    longest: float = first * min(2 ** min(failures - 1, 16), _LONGEST)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
