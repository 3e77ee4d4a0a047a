"""Executions and fences."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "executions",
        sa.Column("execution_id", sa.String(63), primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("job_id", sa.String(63), nullable=False),
        sa.Column("sandbox_tier", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("signal", sa.Integer),
        sa.Column("processes_left", sa.Integer),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("events_trimmed", sa.Boolean, nullable=False),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("cost_usd", sa.Float),
        sa.Column("turns", sa.Integer),
        sa.Column("tool_calls", sa.Integer),
        sa.Column("last_words", sa.Text),
        sa.Column("end_verified_by", sa.String(16)),
        sa.Column("cpu_seconds", sa.Float),
        sa.Column("memory_peak_bytes", sa.BigInteger),
        sa.Column("read_bytes", sa.BigInteger),
        sa.Column("written_bytes", sa.BigInteger),
    )
    op.create_index("executions_newest", "executions", ["create_time", "execution_id"])
    op.create_index("executions_by_job", "executions", ["job_id"])
    op.create_table(
        "fences",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
