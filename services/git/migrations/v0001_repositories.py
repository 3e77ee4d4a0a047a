"""Repositories, clones and fences."""

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
        "fences",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
