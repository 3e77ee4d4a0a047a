"""What is spent of budgets, in SQL, as people ask for it."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.gateway.ledger.budgets.uses import tell_again, use_view
from services.gateway.schema.budgets import budget_use, budgets
from services.gateway.schema.clock import NOW
from services.gateway.schema.ownership import Ownership, owned
from services.gateway.values.budgets import Budget, BudgetUse

OWNERS: Final[Mapping[str, Ownership]] = {"budget": owned(budgets, is_deletable=True)}
"""How to look up which project owns a budget."""

_MOST_SHOWN: Final = 20
_SPENT: Final = (
    budget_use.c.spent_nanodollars.desc(),
    budget_use.c.spent_tokens.desc(),
    budget_use.c.spent_requests.desc(),
    budget_use.c.subject_id,
)


class BudgetStore:
    """Reads what is spent of budgets. Each method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def uses(self, asked: Sequence[Budget]) -> Mapping[str, Sequence[BudgetUse]]:
        """Return what is spent of each budget in the present period, by its id: the most first, and only some."""
        found: dict[str, list[BudgetUse]] = {budget.budget_id: [] for budget in asked}
        if not asked:
            return found
        async with self._engine.begin() as connection:
            time = (await connection.execute(select(NOW))).scalar_one()
            present = (
                and_(budget_use.c.budget_id == budget.budget_id, budget_use.c.period == budget.period.of(time))
                for budget in asked
            )
            query = select(budget_use).where(or_(*present)).order_by(*_SPENT)
            async with connection.stream(query) as rows:
                async for row in rows:
                    if len(found[row.budget_id]) < _MOST_SHOWN:
                        found[row.budget_id].append(use_view(row))
        return found

    async def tell_again(self, budget_id: str) -> None:
        """Forget which shares people were told of, as those of other limits are others."""
        async with self._engine.begin() as connection:
            await tell_again(connection, budget_id)

    async def forget(self, budget_id: str) -> None:
        """Remove what was counted of a budget that is deleted."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(budget_use).where(budget_use.c.budget_id == budget_id))
