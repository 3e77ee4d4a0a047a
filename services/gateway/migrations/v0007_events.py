"""Events of executions on coordinators' machines."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "event_logs",
        sa.Column("execution_id", sa.String(63), sa.ForeignKey("executions.execution_id"), primary_key=True),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("next_sequence", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("is_complete", sa.Boolean, nullable=False),
    )
    op.create_table(
        "event_batches",
        sa.Column("execution_id", sa.String(63), sa.ForeignKey("executions.execution_id"), primary_key=True),
        sa.Column("next_sequence", sa.BigInteger, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
