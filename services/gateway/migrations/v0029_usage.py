"""What models were used for, in rows of their own. Of earlier jobs their sums are taken over: of no known model."""

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"

_COUNTS = (
    *("requests", "partial_requests", "unpriced_requests", "tokens", "input_tokens", "output_tokens"),
    *("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens"),
)
_AT_ONCE = 500
_EARLIER = sa.text(
    "SELECT e.execution_id, e.output, e.end_time, e.create_time, j.job_id, j.project_id, j.worker_id, j.template_id"
    " FROM executions e JOIN jobs j ON j.job_id = e.job_id"
    " WHERE e.purpose = 'AGENT' AND e.execution_id > :after ORDER BY e.execution_id LIMIT :at_once"
)


def upgrade() -> None:
    usage = op.create_table(
        "model_usage",
        sa.Column("execution_id", sa.String(63), primary_key=True),
        sa.Column("provider", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("job_id", sa.String(63), nullable=False),
        sa.Column("project_id", sa.String(63), nullable=False),
        sa.Column("worker_id", sa.String(63), nullable=True),
        sa.Column("template_id", sa.String(63), nullable=False),
        *_sums(),
        sa.Column("is_counted", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("model_usage_days", "model_usage", ["day", "project_id"])
    op.create_index("model_usage_of_job", "model_usage", ["job_id"])
    uncounted = sa.column("is_counted").is_(False)
    op.create_index("model_usage_uncounted", "model_usage", ["day"], postgresql_where=uncounted, sqlite_where=uncounted)
    op.create_table(
        "usage_labels",
        sa.Column("job_id", sa.String(63), primary_key=True),
        sa.Column("key", sa.String(63), primary_key=True),
        sa.Column("value", sa.String(63), nullable=False),
    )
    op.create_table(
        "usage_totals",
        sa.Column("project_id", sa.String(63), primary_key=True),
        sa.Column("provider", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        *_sums(),
    )
    _take_over(usage)


def _sums() -> list[sa.Column[Any]]:
    return [
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.Column("cost_usd", sa.Float, nullable=True),
    ]


def _take_over(usage: sa.Table) -> None:
    connection, after = op.get_bind(), ""
    while rows := connection.execute(_EARLIER, {"after": after, "at_once": _AT_ONCE}).all():
        if known := [row for row in map(_row, rows) if row is not None]:
            connection.execute(usage.insert(), known)
        after = rows[-1].execution_id


def _row(execution: sa.Row[Any]) -> dict[str, Any] | None:
    output = json.loads(execution.output)
    tokens, cost = output.get("tokens_used") or 0, output.get("cost_usd")
    if not tokens and not cost:
        return None
    requests = output.get("turns") or 1
    moment = execution.end_time or execution.create_time
    return {
        **dict.fromkeys(_COUNTS, 0),
        **{name: getattr(execution, name) for name in ("execution_id", "job_id", "project_id", "worker_id")},
        "template_id": execution.template_id,
        "provider": "",
        "model": "",
        "day": f"{datetime.fromtimestamp(moment // 1_000_000, UTC):%Y-%m-%d}",
        "requests": requests,
        "unpriced_requests": requests if cost is None else 0,
        "tokens": tokens,
        "cost_usd": cost,
    }
