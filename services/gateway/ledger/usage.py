"""What models were used for, as rows that outlive their jobs. Everything here works inside the caller's transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, exists, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.usage import COUNTS, ModelUsageSum, UsageSum
from services.gateway.schema.jobs import job_labels
from services.gateway.schema.sql import Insertion, storable_text
from services.gateway.schema.usage import model_usage, usage_labels
from services.lifecycle.ledger import Lease
from services.lifecycle.model.output import ExecutionNote

USAGE_COLUMNS: Final = (*COUNTS, "cost_usd")
"""The columns of a UsageSum."""

_KEY: Final = ("provider", "model", "day")
_THIS: Final = model_usage.c.execution_id == bindparam("this")
_KNOWN: Final = select(*(model_usage.c[name] for name in (*_KEY, *USAGE_COLUMNS))).where(_THIS)
_FORGET: Final = delete(model_usage).where(_THIS, model_usage.c.is_counted.is_(False))
_WRITE: Final = Insertion(model_usage, {})


async def write_usage(connection: AsyncConnection, lease: Lease, note: ExecutionNote) -> None:
    """Record what an execution of the lease's job has used, in place of what was recorded of it before."""
    if not (usage := note.output.known_usage):
        return
    rows = _by_key(usage, f"{note.end_time or datetime.now(UTC):%Y-%m-%d}")
    this = {"this": note.execution_id}
    known = {tuple(row[:3]): usage_of(row) for row in await connection.execute(_KNOWN, this)}
    if known == rows:
        return
    await connection.execute(_FORGET, this)
    spec = lease.spec
    of_job = {"job_id": spec.job_id, "project_id": spec.project_id, "worker_id": spec.worker_id}
    of_job |= {"template_id": spec.template_id, "execution_id": note.execution_id}
    for key, sums in rows.items():
        await _WRITE.execute(connection, of_job | dict(zip(_KEY, key, strict=True)) | asdict(sums))


def _by_key(usage: Iterable[ModelUsageSum], day: str) -> dict[tuple[str, ...], UsageSum]:
    """Return sums by provider, model and day; those of no known day are of this one."""
    rows: dict[tuple[str, ...], UsageSum] = {}
    for row in usage:
        key = (storable_text(row.provider), storable_text(row.model), row.day or day)
        rows[key] = rows.get(key, UsageSum()) + row.usage
    return rows


def usage_of(row: Any) -> UsageSum:  # noqa: ANN401 - any row with these columns
    """Read the columns of a UsageSum."""
    return UsageSum(**{name: getattr(row, name) or 0 for name in COUNTS}, cost_usd=row.cost_usd)


async def keep_labels(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    """Keep the labels of jobs that are about to be removed, and whose usage stays."""
    used = exists().where(model_usage.c.job_id == job_labels.c.job_id)
    left = select(job_labels.c.job_id, job_labels.c.key, job_labels.c.value).where(
        job_labels.c.job_id.in_(job_ids), used
    )
    await connection.execute(insert(usage_labels).from_select(["job_id", "key", "value"], left))
