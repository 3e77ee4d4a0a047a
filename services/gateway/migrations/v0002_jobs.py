"""The ledger: jobs, their stages and executions, and the cells that take them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "jobs",
        _id("job_id"),
        sa.Column("project_id", sa.String(63), sa.ForeignKey("projects.project_id"), nullable=False),
        _word("kind", 63),
        _reference("worker_id", "workers"),
        _reference("work_item_id", "work_items"),
        _reference("repository_id", "repositories"),
        _word("engine", 31),
        sa.Column("priority", sa.Integer, nullable=False),
        _text("definition"),
        _word("state", 31),
        _word("reason", 63),
        _text("message"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("last_attempt", sa.Integer, nullable=False),
        _word("execution_id", 63),
        _word("snapshot_id", 63),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("wake_time", sa.BigInteger, nullable=False),
        _word("bound_cell_id", 63),
        sa.Column("fence", sa.BigInteger, nullable=False),
        _word("cell_id", 63),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        *_times("create_time", "start_time", "end_time"),
    )
    _partial_index("jobs_queued", ["project_id", "turn", "job_id"], "state IN ('PENDING', 'AWAITING_APPROVAL')")
    _partial_index("jobs_running", ["project_id", "state"], "state = 'RUNNING'")
    op.create_index("jobs_ended", "jobs", ["project_id", "end_time"])
    op.create_index("jobs_newest", "jobs", ["create_time", "job_id"])
    _partial_index("jobs_live", ["create_time", "job_id"], "state IN ('PENDING', 'AWAITING_APPROVAL', 'RUNNING')")
    op.create_index("jobs_last_ended", "jobs", ["end_time"])
    for column in ("project_id", "state", "worker_id"):
        op.create_index(f"jobs_newest_of_{column.removesuffix('_id')}", "jobs", [column, "create_time", "job_id"])
    op.create_index("jobs_of_work_item", "jobs", ["work_item_id"])
    op.create_table(
        "stages",
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        _id("name"),
        sa.Column("number", sa.Integer, nullable=False),
        _word("state", 31),
        _text("result"),
        _text("message"),
        *_times("start_time", "end_time"),
    )
    op.create_table(
        "executions",
        _id("execution_id"),
        sa.Column("job_id", sa.String(63), sa.ForeignKey("jobs.job_id"), nullable=False),
        _word("purpose", 31),
        sa.Column("attempt", sa.Integer, nullable=False),
        _word("workspace_id", 63),
        _word("cell_id", 63),
        _word("state", 31),
        _word("reason", 63),
        _text("message"),
        _text("output"),
        _text("bulk"),
        *_times("create_time", "start_time", "end_time"),
    )
    op.create_index("executions_newest", "executions", ["create_time", "execution_id"])
    op.create_index("executions_of_job", "executions", ["job_id"])
    op.create_index("executions_of_workspace", "executions", ["workspace_id"])
    op.create_table(
        "cells",
        _id("cell_id"),
        _word("kind", 31),
        _text("host"),
        _word("version", 63),
        sa.Column("capacity", sa.Integer, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("until_start", sa.Boolean, nullable=False),
        _text("address"),
        _text("peer_token"),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("beat_time", sa.BigInteger, nullable=False),
    )


def _partial_index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "jobs", columns, postgresql_where=where, sqlite_where=where)


def _id(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.String(63), primary_key=True)


def _word(name: str, length: int) -> sa.Column[object]:
    return sa.Column(name, sa.String(length), nullable=False)


def _text(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False)


def _reference(name: str, table: str) -> sa.Column[object]:
    return sa.Column(name, sa.String(63), sa.ForeignKey(f"{table}.{name}"), nullable=True)


def _times(first: str, *others: str) -> list[sa.Column[object]]:
    """The first is always known; all are in microseconds since 1970."""
    return [sa.Column(name, sa.BigInteger, nullable=name in others) for name in (first, *others)]
