"""Tells people how much of a budget is spent: each share once for each period, however often a request is settled."""

from collections.abc import Mapping
from itertools import chain, count
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.commit_events import publish_on_commit
from services.gateway.ledger.budgets.bounds import Bound, in_words
from services.gateway.ledger.budgets.uses import OWN, Key, Use, write
from services.gateway.ledger.timeline import tell
from services.gateway.schema.budgets import budgets
from services.gateway.schema.jobs import jobs
from services.gateway.values.facts import BudgetRefused
from services.lifecycle.ledger import Lease
from services.lifecycle.model.budgets import EXCEEDED, BudgetLimits, Granting, Spending
from services.lifecycle.model.job_spec import JobSpec

SHARES: Final = (50, 80, 100)
"""The shares of a budget, in percent, that are told when they are spent."""


async def note_refusal(connection: AsyncConnection, lease: Lease, bound: Bound, use: Use, refused: Granting) -> None:
    """Tell that a budget is at its end, once, and count the refusal."""
    if refused.reason != EXCEEDED:
        return
    publish_on_commit(connection, BudgetRefused(bound.scope))
    if use.told < SHARES[-1]:
        use.told = SHARES[-1]
        await write(connection, [use])
        await _tell(connection, lease.job_id, lease.attempt, SHARES[-1], refused.message)


async def tell_shares(connection: AsyncConnection, spec: JobSpec, attempt: int, uses: Mapping[Key, Use]) -> None:
    """Tell of each budget that more than a share of it is spent, once for each share and period."""
    ids = [budget_id for budget_id, *_ in uses if budget_id != OWN]
    limits = {OWN: spec.policy.budget}
    if ids:
        query = select(budgets.c.budget_id, budgets.c.limits).where(budgets.c.budget_id.in_(ids))
        limits |= {row.budget_id: row.limits for row in (await connection.execute(query)).all()}
    for key, use in uses.items():
        known = limits.get(key[0])
        if known is None:  # it was deleted
            continue
        told = max((share for share in SHARES if _reaches(known, use.spent, share)), default=0)
        if told > use.told:
            use.told = told
            whose = f"budget {key[0]}" if key[0] else "the job's budget"
            await _tell(connection, spec.job_id, attempt, told, f"{whose}: {in_words(known, use.spent)} spent")


def _reaches(limits: BudgetLimits, spent: Spending, share: int) -> bool:
    pairs = zip(limits.amounts, spent.amounts, strict=True)
    return any(most is not None and value * 100 >= most * share for most, value in pairs)


async def _tell(connection: AsyncConnection, job_id: str, attempt: int, share: int, text: str) -> None:
    """Tell in the timeline, and those who watch the job, that a share is spent."""
    names = (f"budget-{share}{suffix}" for suffix in chain([""], map("-{}".format, count(2))))
    while not await tell(connection, job_id, attempt, next(names), text):  # another budget's has the name
        pass
    await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(revision=jobs.c.revision + 1))
