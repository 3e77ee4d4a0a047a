"""The tables of budgets.

budgets       a budget of the catalogue; what a job may spend by itself is in its policy
budget_use    one row for each budget, for whom it is (an execution, a job, a worker, a project), and period: what is
              spent, and what is reserved; of a job's own budget with an empty budget_id
reservations  one row for each request to a model that was let through, while its attempt lasts
"""

from sqlalchemy import BigInteger, Boolean, Column, Enum, ForeignKey, Index, Integer, String, Table, false

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sql import JsonValue, OptionalId
from services.gateway.values.budgets import BudgetPeriod, BudgetScope
from services.lifecycle.model.budgets import BudgetLimits

budgets = Table(
    "budgets",
    metadata,
    Column("budget_id", String(63), primary_key=True),
    Column("project_id", String(63), ForeignKey("projects.project_id"), nullable=False),
    Column("scope", Enum(BudgetScope, native_enum=False, length=16), nullable=False),
    Column("worker_id", OptionalId, ForeignKey("workers.worker_id"), nullable=True),
    Column("period", Enum(BudgetPeriod, native_enum=False, length=16), nullable=False),
    Column("limits", JsonValue(BudgetLimits), nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("delete_time", Moment, nullable=True),
)
Index("budgets_newest", budgets.c.create_time, budgets.c.budget_id)
Index("budgets_newest_of_project", budgets.c.project_id, budgets.c.create_time, budgets.c.budget_id)


def _amount(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


budget_use = Table(
    "budget_use",
    metadata,
    Column("budget_id", String(63), primary_key=True),
    Column("subject_id", String(63), primary_key=True),
    Column("period", String(10), primary_key=True),  # empty, or as 2026-11-30, or 2026-11
    Column("job_id", OptionalId, ForeignKey("jobs.job_id"), nullable=True),  # of an execution or job: they go together
    _amount("spent_nanodollars"),
    _amount("spent_tokens"),
    _amount("spent_requests"),
    _amount("reserved_nanodollars"),
    _amount("reserved_tokens"),
    _amount("reserved_requests"),
    _amount("requests_of_unknown_cost"),
    Column("told_percent", Integer, nullable=False, server_default="0"),  # the last share that people were told of
)
Index("budget_use_of_job", budget_use.c.job_id)

reservations = Table(
    "reservations",
    metadata,
    Column("execution_id", String(63), primary_key=True),
    Column("ask_id", String(63), primary_key=True),
    Column("job_id", String(63), ForeignKey("jobs.job_id"), nullable=False),
    Column("fence", BigInteger, nullable=False),  # of the lease under which it was made
    Column("keys", JsonValue(tuple[tuple[str, str, str], ...]), nullable=False),  # of the rows of budget_use, in order
    _amount("nanodollars"),
    _amount("tokens"),
    _amount("requests"),
    Column("is_cost_known", Boolean, nullable=False),
    Column("is_settled", Boolean, nullable=False, server_default=false()),
)
Index("reservations_of_job", reservations.c.job_id)
