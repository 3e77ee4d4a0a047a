"""The catalogue, hooks, and the request ids that were used; with the project that is always there."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    default_worker = sa.Column("default_worker_id", sa.String(63), nullable=True)
    projects = op.create_table(
        "projects", _id("project_id"), _text("display_name"), _limit(), default_worker, _create_time()
    )
    _create_in_project(
        "repositories", "repository_id", _text("url"), _bytes("default_revision"), _text("token"), _limit()
    )
    op.create_index("repositories_url", "repositories", ["url"])
    _create_in_project("templates", "template_id", _text("display_name"), _json("agent"), _json("policy"))
    _create_in_project(
        "workers",
        "worker_id",
        _text("display_name"),
        _reference("template_id", "templates"),
        _json("agent"),
        _json("policy"),
        _limit(),
    )
    _create_in_project(
        "work_items",
        "work_item_id",
        _text("title"),
        _text("description"),
        _json("notes"),
        _json("related_work_item_ids"),
        _reference("repository_id", "repositories"),
        _reference("worker_id", "workers"),
        _reference("template_id", "templates"),
        sa.Column("state", sa.String(16), nullable=False),
    )
    _create_in_project(
        "hooks",
        "hook_id",
        sa.Column("event", sa.String(16), nullable=False),
        _text("command"),
        sa.Column("order", sa.Integer, nullable=False),
        sa.Column("timeout", sa.Interval, nullable=False),
        sa.Column("remove_time", sa.BigInteger, nullable=True),
    )
    op.create_table(
        "request_ids",
        _id("request_id"),
        sa.Column("method", sa.String(127), nullable=False),
        _bytes("digest"),
        sa.Column("reference", sa.String(63), nullable=False),
        _create_time(),
    )
    op.create_index("request_ids_oldest", "request_ids", ["create_time"])
    op.create_index("projects_newest", "projects", ["create_time", "project_id"])
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    op.bulk_insert(projects, [{"project_id": "default", "display_name": "", "max_running_jobs": 0, "create_time": now}])


def _create_in_project(table: str, key: str, *columns: sa.Column[object]) -> None:
    # A hook without a project is for all of them.
    project = sa.Column("project_id", sa.String(63), sa.ForeignKey("projects.project_id"), nullable=table == "hooks")
    op.create_table(table, _id(key), project, *columns, _create_time())
    if table != "hooks":
        op.create_index(f"{table}_newest", table, ["create_time", key])
        op.create_index(f"{table}_newest_of_project", table, ["project_id", "create_time", key])


def _id(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.String(63), primary_key=True)


def _reference(name: str, table: str) -> sa.Column[object]:
    return sa.Column(name, sa.String(63), sa.ForeignKey(f"{table}.{name}"), nullable=True)


def _text(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False)


def _bytes(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=False)


def _limit() -> sa.Column[object]:
    return sa.Column("max_running_jobs", sa.Integer, nullable=False)


def _create_time() -> sa.Column[object]:
    return sa.Column("create_time", sa.BigInteger, nullable=False)  # microseconds since 1970
