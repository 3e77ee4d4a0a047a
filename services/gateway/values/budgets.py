"""Budgets of the catalogue, and what is spent of them. Times are in UTC."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

from services.lifecycle.model.budgets import AMOUNTS, BudgetLimits, Spending


class BudgetScope(enum.StrEnum):
    """What a budget is for: each execution, each job with all its attempts, each worker, or the whole project.

    An execution goes on with its budget after an outage of its model.
    """

    EXECUTION = "EXECUTION"
    JOB = "JOB"
    WORKER = "WORKER"
    PROJECT = "PROJECT"


class BudgetPeriod(enum.StrEnum):
    """After which time a budget is whole again: never, or when a day or a month begins in UTC."""

    NONE = "NONE"
    DAY = "DAY"
    MONTH = "MONTH"

    def of(self, moment: datetime) -> str:
        """Return the name of the period that a moment is in: empty for NONE, or as 2026-11-30, or 2026-11."""
        return {"NONE": "", "DAY": f"{moment:%Y-%m-%d}", "MONTH": f"{moment:%Y-%m}"}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent in a project. `worker_id` limits it to one worker's jobs; empty means everybody's."""

    budget_id: str
    project_id: str
    scope: BudgetScope = BudgetScope.PROJECT
    worker_id: str = ""
    period: BudgetPeriod = BudgetPeriod.NONE
    limits: BudgetLimits = field(default_factory=BudgetLimits)
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """What one of those whom a budget is for has spent in a period, and what is reserved of it."""

    spender: str
    period: str = ""
    spent: Spending = field(default_factory=Spending)
    reserved: Spending = field(default_factory=Spending)
    requests_of_unknown_cost: int = 0

    def left(self, limits: BudgetLimits) -> BudgetLimits:
        """Return what is left of each limit that is set, and not reserved; never less than 0."""
        taken = self.spent + self.reserved
        most = {name: getattr(limits, name) for name in AMOUNTS}
        return BudgetLimits(
            **{name: max(0, limit - getattr(taken, name)) for name, limit in most.items() if limit is not None}
        )
