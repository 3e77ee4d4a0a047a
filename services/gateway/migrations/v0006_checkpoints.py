"""Questions to people, and their answers."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("checkpoint_id", sa.String(63), primary_key=True),
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), nullable=False),
        _word("project_id", 63),
        _word("execution_id", 63),
        _word("name", 63),
        _word("origin", 15),
        _text("question"),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("takes_changes", sa.Boolean, nullable=False),
        _text("output"),
        _word("state", 31),
        *(_text(name) for name in ("comment", "decided_by", "decided_peer", "decided_via")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("create_time", "expire_time")),
        sa.Column("decide_time", sa.BigInteger, nullable=True),
    )
    op.create_index("checkpoints_newest", "checkpoints", ["create_time", "checkpoint_id"])
    op.create_index("checkpoints_of_job", "checkpoints", ["job_id"])
    op.create_index("checkpoints_of_state", "checkpoints", ["state", "create_time"])


def _word(name: str, length: int) -> sa.Column[object]:
    return sa.Column(name, sa.String(length), nullable=False)


def _text(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False)
