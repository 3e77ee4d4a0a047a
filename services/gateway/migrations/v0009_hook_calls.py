"""The history of what hooks were called."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "hook_calls",
        sa.Column("call_id", sa.String(127), primary_key=True),
        _word("hook_id", 63),
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False),
        _word("project_id", 63),
        sa.Column("attempt", sa.Integer, nullable=False),
        _word("event", 16),
        _word("stage", 31),
        _word("state", 16),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("begun", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger, nullable=True),
    )
    op.create_index("hook_calls_newest", "hook_calls", ["start_time", "call_id"])
    op.create_index("hook_calls_of_hook", "hook_calls", ["hook_id", "start_time"])
    op.create_index("hook_calls_of_job", "hook_calls", ["job_id"])


def _word(name: str, length: int) -> sa.Column[object]:
    return sa.Column(name, sa.String(length), nullable=False)
