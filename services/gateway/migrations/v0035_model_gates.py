"""Gates: what providers of models limit together, for all executions."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0033"


def upgrade() -> None:
    op.create_table(
        "model_gates",
        *_gate(),
        sa.Column("open_time", sa.BigInteger, nullable=False),
        sa.Column("is_proven", sa.Boolean, nullable=False),
        sa.Column("next_time", sa.BigInteger, nullable=False),
        sa.Column("pause", sa.BigInteger, nullable=False),
        sa.Column("trial_execution_id", sa.String(63), nullable=False),
        sa.Column("trial_ask_id", sa.String(63), nullable=False),
    )
    op.create_table(
        "model_gate_turns",
        *_gate(),
        sa.Column("project_id", sa.String(63), primary_key=True),
        sa.Column("passed", sa.Integer, nullable=False),
        sa.Column("waits_until", sa.BigInteger, nullable=False),
    )


def _gate() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("scope", sa.String(80), primary_key=True),
        sa.Column("provider", sa.String(63), primary_key=True),
        sa.Column("key", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, primary_key=True),
    )
