"""Labels of jobs, as they are searched: one row each, beside the job's order, which shows them."""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Column, ColumnElement, ForeignKey, Index, String, Table, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.database import metadata
from services.gateway.jobs.model import LabelSelector
from services.gateway.jobs.tables import jobs
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.value import dump, load

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", String(63), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(63), nullable=False),
)
Index("job_labels_by_value", job_labels.c.key, job_labels.c.value, job_labels.c.job_id)


async def write_labels(connection: AsyncConnection, job_id: str, labels: Mapping[str, str]) -> None:
    """Have a job that has no labels yet found by these."""
    if labels:
        rows = [{"job_id": job_id, "key": key, "value": value} for key, value in labels.items()]
        await connection.execute(insert(job_labels), rows)


async def add_labels(connection: AsyncConnection, job_id: str, labels: Mapping[str, str]) -> None:
    """Give a job these labels too, where it is shown and where it is found; one that it has gets the new value."""
    known = select(jobs.c.definition).where(jobs.c.job_id == job_id)
    order = load(JobSpec, (await connection.execute(known)).scalar_one())
    order = replace(order, labels={**order.labels, **labels})
    await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(definition=dump(order)))
    await connection.execute(delete(job_labels).where(job_labels.c.job_id == job_id))
    await write_labels(connection, job_id, order.labels)


def selected(selector: LabelSelector) -> ColumnElement[bool]:
    """Return the condition that a selector puts on jobs."""
    having = select(job_labels.c.job_id).where(job_labels.c.key == selector.key)
    if selector.values:
        having = having.where(job_labels.c.value.in_(selector.values))
    return jobs.c.job_id.not_in(having) if selector.lacks else jobs.c.job_id.in_(having)
