"""The rows in which the use of budgets is counted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Row, and_, bindparam, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.budgets import budget_use, budgets
from services.gateway.schema.clock import NOW
from services.gateway.schema.sql import insert_if_absent
from services.gateway.values.budgets import BudgetPeriod, BudgetUse
from services.lifecycle.model.budgets import Spending

OWN: Final = ""
"""Stands for the id of a job's own budget, in its policy."""

Key = tuple[str, str, str]
"""Budget, subject and period of a row of budget_use."""

_KEY: Final = (budget_use.c.budget_id, budget_use.c.subject_id, budget_use.c.period)
_THESE: Final = tuple_(*_KEY).in_(bindparam("these_keys", expanding=True))
_LOCKED_USES: Final = select(budget_use).where(_THESE).order_by(*_KEY).with_for_update()
_CHANGED: Final = (
    "spent_nanodollars",
    "spent_tokens",
    "spent_requests",
    "reserved_nanodollars",
    "reserved_tokens",
    "reserved_requests",
    "requests_of_unknown_cost",
    "told_percent",
)
_CHANGE: Final = (
    update(budget_use)
    .where(*(column == bindparam(f"this_{column.name}") for column in _KEY))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED})
)


@dataclass(slots=True)
class Use:
    """A locked row of budget_use."""

    key: Key
    spent: Spending
    reserved: Spending
    unknown: int
    told: int

    @classmethod
    def of(cls, row: Row[Any]) -> "Use":
        """Read a row."""
        view = use_view(row)
        key = (row.budget_id, row.subject_id, row.period)
        return cls(key, view.spent, view.reserved, view.requests_of_unknown_cost, row.told_percent)

    @property
    def taken(self) -> Spending:
        """What is spent and what is reserved."""
        return self.spent + self.reserved

    def to_columns(self) -> dict[str, Any]:
        """Return the parameters of _CHANGE."""
        values = (*self.spent.amounts, *self.reserved.amounts, self.unknown, self.told)
        new = {f"new_{name}": value for name, value in zip(_CHANGED, values, strict=True)}
        return new | {f"this_{column.name}": value for column, value in zip(_KEY, self.key, strict=True)}


def use_view(row: Row[Any]) -> BudgetUse:
    """Read a row of budget_use, as people see it."""
    return _use_of(dict(row._mapping), spender=row.subject_id, period=row.period)


def _use_of(amounts: Mapping[str, Any], *, spender: str, period: str = "") -> BudgetUse:
    spent, reserved = (
        Spending(**{name: int(amounts[f"{what}_{name}"]) for name in ("nanodollars", "tokens", "requests")})
        for what in ("spent", "reserved")
    )
    unknown = int(amounts["requests_of_unknown_cost"])
    return BudgetUse(spender=spender, period=period, spent=spent, reserved=reserved, requests_of_unknown_cost=unknown)


async def own_uses(connection: AsyncConnection, job_ids: Sequence[str]) -> Mapping[str, BudgetUse]:
    """Return what jobs have spent of their own budgets, by job."""
    query = select(budget_use).where(budget_use.c.budget_id == OWN, budget_use.c.subject_id.in_(job_ids))
    rows = (await connection.execute(query)).all() if job_ids else ()
    return {row.subject_id: use_view(row) for row in rows}


async def uses_by_budget(connection: AsyncConnection) -> dict[str, BudgetUse]:
    """Return what is spent of each budget of the catalogue in its present period, by all spenders together."""
    time = (await connection.execute(select(NOW))).scalar_one()
    amounts = [column for column in budget_use.c if isinstance(column.type, BigInteger)]
    present = or_(
        *(and_(budgets.c.period == period, budget_use.c.period == period.of(time)) for period in BudgetPeriod)
    )
    query = (
        select(budgets.c.budget_id, *(func.coalesce(func.sum(each), 0).label(each.name) for each in amounts))
        .join_from(budgets, budget_use, and_(budget_use.c.budget_id == budgets.c.budget_id, present), isouter=True)
        .where(budgets.c.delete_time.is_(None))
        .group_by(budgets.c.budget_id)
    )
    rows = (await connection.execute(query)).mappings()
    return {row["budget_id"]: _use_of(dict(row), spender="") for row in rows}


async def tell_again(connection: AsyncConnection, budget_id: str, subject_id: str = "") -> None:
    """Forget which shares of a budget people were told of, now that it has other limits; of one spender, or of all."""
    told = update(budget_use).where(budget_use.c.budget_id == budget_id, budget_use.c.told_percent > 0)
    of_spender = told.where(budget_use.c.subject_id == subject_id) if subject_id else told
    await connection.execute(of_spender.values(told_percent=0))


async def carry_over(connection: AsyncConnection, job_id: str, execution_id: str, next_id: str) -> None:
    """Let an execution go on with what another of its job has spent of budgets for each of them.

    Nothing is reserved by either.
    """
    of_execution = (budget_use.c.job_id == job_id, budget_use.c.subject_id == execution_id)
    await connection.execute(update(budget_use).where(*of_execution).values(subject_id=next_id))


async def lock_all(connection: AsyncConnection, job_of: Mapping[Key, str]) -> dict[Key, Use]:
    """Lock rows in the order of their keys, and make those that are not there: they go with the job that is given."""
    uses = await lock(connection, list(job_of))
    if len(uses) == len(job_of):
        return uses
    for key, job_id in job_of.items():
        if key not in uses:
            budget_id, subject_id, period = key
            row = {"budget_id": budget_id, "subject_id": subject_id, "period": period, "job_id": job_id}
            await insert_if_absent(connection, budget_use, row)
    return await lock(connection, list(job_of))


async def lock(connection: AsyncConnection, keys: Sequence[Key]) -> dict[Key, Use]:
    """Lock the rows that are there, in the order of their keys."""
    rows = (await connection.execute(_LOCKED_USES, {"these_keys": keys})).all() if keys else ()
    return {use.key: use for use in map(Use.of, rows)}


async def write(connection: AsyncConnection, uses: Iterable[Use]) -> None:
    """Write locked rows that have changed."""
    rows = [use.to_columns() for use in uses]
    if rows:
        await connection.execute(_CHANGE, rows)
