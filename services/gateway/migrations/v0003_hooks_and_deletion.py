"""Webhooks and failure policies, documents of work items, and a catalogue whose things can be deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for column in (
        sa.Column("url", sa.Text, nullable=False, server_default=""),
        sa.Column("secret", sa.Text, nullable=False, server_default=""),
        sa.Column("is_callback", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("failure_policy", sa.String(16), nullable=False, server_default="FAIL"),
        sa.Column("stage", sa.String(31), nullable=False, server_default=""),
        sa.Column("template_ids", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("kinds", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("hooks", column)
    op.add_column("work_items", sa.Column("documents", sa.JSON, nullable=False, server_default="[]"))
    for table in ("projects", "repositories", "templates", "workers", "work_items"):
        op.add_column(table, sa.Column("delete_time", sa.BigInteger, nullable=True))
    op.add_column("jobs", sa.Column("template_id", sa.String(63), nullable=False, server_default=""))
