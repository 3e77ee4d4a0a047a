"""Totals of what is no longer in rows; hooks called on cancel; projects that take up only what is to do."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("hooks", sa.Column("on_cancel", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("projects", sa.Column("todo_only", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "totals",
        sa.Column("series", sa.String(31), primary_key=True),
        sa.Column("status", sa.String(31), primary_key=True),
        sa.Column("at_most_seconds", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("microseconds", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "jobs_durations",
        "jobs",
        ["state", "start_time", "end_time"],
        postgresql_where=sa.text("end_time IS NOT NULL"),
        sqlite_where=sa.text("end_time IS NOT NULL"),
    )
