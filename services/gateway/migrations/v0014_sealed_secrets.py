"""Secrets of jobs and of what they are made from, the keys that seal them, and which of these each cell has."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "sealing_keys",
        sa.Column("key_id", sa.String(63), primary_key=True),
        sa.Column("state", sa.String(15), nullable=False),
        sa.Column("test_value", sa.Text, nullable=False),
        sa.Column("handover", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    for table in ("projects", "templates", "workers", "work_items", "jobs"):
        op.add_column(table, sa.Column("secrets", sa.Text, nullable=False, server_default=""))
    op.add_column("cells", sa.Column("key_ids", sa.Text, nullable=False, server_default=""))
    op.add_column("cells", sa.Column("sealing_key_id", sa.String(63), nullable=False, server_default=""))
