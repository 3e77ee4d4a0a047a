"""Workspaces and fences."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "workspaces",
        sa.Column("workspace_id", sa.String(63), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("driver", sa.String(16), nullable=False),
        sa.Column("base_layers", sa.LargeBinary, nullable=False),
        sa.Column("pins_path", sa.LargeBinary, nullable=True),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("project_id", sa.String(63), nullable=False),
        sa.Column("job_id", sa.String(63), nullable=False),
        sa.Column("worker_id", sa.String(63), nullable=False),
        sa.Column("work_item_id", sa.String(63), nullable=False),
        sa.Column("repository_id", sa.String(63), nullable=False),
        sa.Column("branch", sa.LargeBinary, nullable=False),
        sa.Column("files_digest", sa.String(64), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=True),
    )
    op.create_index("workspaces_newest", "workspaces", ["create_time", "workspace_id"])
    op.create_table(
        "fences",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
