"""Which budgets bind a request, and why one of them does not let it through."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, exists, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.ledger.budgets.uses import OWN, Key, Use
from services.gateway.schema.budgets import budgets
from services.gateway.values.budgets import BudgetPeriod, BudgetScope
from services.lifecycle.model.budgets import EXCEEDED, BudgetLimits, Granting, ModelNeed, Spending
from services.lifecycle.model.job_spec import JobSpec

_WAIT_SECONDS: Final = 1.0
"""When to ask again for what may fit once requests that are under way have ended."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A budget that binds a request: the row where its use is counted, its limits, and how people know it."""

    key: Key
    limits: BudgetLimits
    scope: BudgetScope
    words: str
    job_id: str = ""


def has_budgets(spec: JobSpec) -> ColumnElement[bool]:
    """Return the condition that something bounds what a job's agent may spend: then it asks before each request."""
    return literal(not spec.policy.budget.is_open) | exists().where(*_of_project(spec))


def _of_project(spec: JobSpec) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of the budgets that bind a job's agent, besides its own."""
    columns = budgets.c
    yield columns.project_id == spec.project_id
    yield columns.delete_time.is_(None)
    yield columns.worker_id.is_(None) | (columns.worker_id == spec.worker_id)
    if not spec.worker_id:
        yield columns.scope != BudgetScope.WORKER


async def bounds_of(connection: AsyncConnection, spec: JobSpec, execution_id: str, time: datetime) -> list[Bound]:
    """Return the budgets that bind a request now, in the order in which their rows are locked."""
    bounds = []
    if not spec.policy.budget.is_open:
        key = (OWN, spec.job_id, "")
        bounds.append(Bound(key, spec.policy.budget, BudgetScope.JOB, "the job's budget", spec.job_id))
    subjects = {
        BudgetScope.EXECUTION: (execution_id, spec.job_id),
        BudgetScope.JOB: (spec.job_id, spec.job_id),
        BudgetScope.WORKER: (spec.worker_id, ""),
        BudgetScope.PROJECT: (spec.project_id, ""),
    }
    columns = (budgets.c.budget_id, budgets.c.scope, budgets.c.period, budgets.c.limits)
    for row in (await connection.execute(select(*columns).where(*_of_project(spec)))).all():
        subject_id, job_id = subjects[row.scope]
        key = (row.budget_id, subject_id, BudgetPeriod(row.period).of(time))
        bounds.append(Bound(key, row.limits, row.scope, f"budget {row.budget_id}", job_id))
    return sorted(bounds, key=lambda bound: bound.key)


def lacks(limits: BudgetLimits, spending: Spending) -> bool:
    """True when a limit is less than some spending."""
    return any(most is not None and most < value for most, value in zip(limits.amounts, spending.amounts, strict=True))


def refusal(bound: Bound, use: Use, need: ModelNeed) -> Granting | None:
    """Return why a budget does not let a request through; None when it does.

    What would fit without what is only reserved may fit later: requests use less than they might.
    """
    limits, wanted = bound.limits, need.spending
    if need.cost_usd is None and limits.cost_usd is not None and not limits.allow_unknown_cost:
        text = (
            f"{bound.words} limits dollars, and no price is known of the model {need.model!r}, served as it is"
            " asked: ask another, or let it be asked all the same by `unknown-cost` (`--budget 2.50,unknown-cost`)"
        )
        return Granting(is_granted=False, reason=EXCEEDED, message=text)
    if lacks(limits, use.spent + wanted):
        text = f"{bound.words} has too little left: {in_words(limits, use.spent)} spent; the request may need"
        needed = in_words(limits, wanted, with_limits=False)
        return Granting(is_granted=False, reason=EXCEEDED, message=f"{text} {needed}")
    if lacks(limits, use.taken + wanted):
        text = f"what is left of {bound.words} is reserved for requests that have not ended"
        return Granting(is_granted=False, message=text, retry_seconds=_WAIT_SECONDS)
    return None


def in_words(limits: BudgetLimits, spent: Spending, *, with_limits: bool = True) -> str:
    """Say how much is spent of each limit that is set."""
    parts = []
    if limits.cost_usd is not None:
        parts.append(f"${spent.cost_usd:.2f}" + f" of ${limits.cost_usd:.2f}" * with_limits)
    for name in ("tokens", "requests"):
        most = getattr(limits, name)
        if most is not None:
            parts.append(f"{getattr(spent, name):,}" + f" of {most:,}" * with_limits + f" {name}")
    return ", ".join(parts)
