"""Repositories, clones, snapshots and fences."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "repositories",
        sa.Column("repository_id", sa.String(63), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
    )
    op.create_table(
        "clones",
        sa.Column("clone_id", sa.String(63), primary_key=True),
        sa.Column("order_hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", sa.String(63), primary_key=True),
        sa.Column("repository_id", sa.String(63), nullable=False, index=True),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("base_commit_id", sa.String(64), nullable=False),
        sa.Column("commit_id", sa.String(64), nullable=True),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "fences",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
