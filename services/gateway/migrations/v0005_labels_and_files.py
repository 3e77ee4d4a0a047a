"""What jobs are found by, and work on."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "job_labels",
        _job(),
        sa.Column("key", sa.String(63), primary_key=True),
        sa.Column("value", sa.String(63), nullable=False),
    )
    op.create_index("job_labels_by_value", "job_labels", ["key", "value", "job_id"])
    op.create_table(
        "job_files",
        _job(),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )


def _job() -> sa.Column[object]:
    return sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True)
