"""Budgets, what is spent of them, and what is reserved for requests that have not ended."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def _amounts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in names]


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("budget_id", sa.String(63), primary_key=True),
        sa.Column("project_id", sa.String(63), sa.ForeignKey("projects.project_id"), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("worker_id", sa.String(63), sa.ForeignKey("workers.worker_id"), nullable=True),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("delete_time", sa.BigInteger, nullable=True),
    )
    op.create_index("budgets_newest", "budgets", ["create_time", "budget_id"])
    op.create_index("budgets_newest_of_project", "budgets", ["project_id", "create_time", "budget_id"])
    op.create_table(
        "budget_use",
        sa.Column("budget_id", sa.String(63), primary_key=True),
        sa.Column("subject_id", sa.String(63), primary_key=True),
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), nullable=True),
        *_amounts("spent_nanodollars", "spent_tokens", "spent_requests"),
        *_amounts("reserved_nanodollars", "reserved_tokens", "reserved_requests", "requests_of_unknown_cost"),
        sa.Column("told_percent", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("budget_use_of_job", "budget_use", ["job_id"])
    op.create_table(
        "reservations",
        sa.Column("execution_id", sa.String(63), primary_key=True),
        sa.Column("ask_id", sa.String(63), primary_key=True),
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("keys", sa.JSON, nullable=False),
        *_amounts("nanodollars", "tokens", "requests"),
        sa.Column("is_cost_known", sa.Boolean, nullable=False),
        sa.Column("is_settled", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("reservations_of_job", "reservations", ["job_id"])
