"""Labels of jobs: one row each, to be searched; the job's spec has them too, to be shown."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.jobs import job_labels, jobs
from services.gateway.values.jobs import LabelSelector
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.value import dump, load

_NEW: Final = insert(job_labels)


async def write_labels(connection: AsyncConnection, job_id: str, labels: Mapping[str, str]) -> None:
    """Make a job that has no labels yet searchable by these."""
    if labels:
        rows = [{"job_id": job_id, "key": key, "value": value} for key, value in labels.items()]
        await connection.execute(_NEW, rows)


async def add_labels(connection: AsyncConnection, job_id: str, labels: Mapping[str, str]) -> None:
    """Add labels to a job, both shown and searchable. A label that it has already gets the new value."""
    definition = select(jobs.c.definition).where(jobs.c.job_id == job_id)
    spec = load(JobSpec, (await connection.execute(definition)).scalar_one())
    spec = replace(spec, labels={**spec.labels, **labels})
    await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(definition=dump(spec)))
    await connection.execute(delete(job_labels).where(job_labels.c.job_id == job_id))
    await write_labels(connection, job_id, spec.labels)


def selected(selector: LabelSelector) -> ColumnElement[bool]:
    """Return the condition that a selector puts on jobs."""
    labelled = select(job_labels.c.job_id).where(job_labels.c.key == selector.key)
    if selector.values:
        labelled = labelled.where(job_labels.c.value.in_(selector.values))
    return jobs.c.job_id.not_in(labelled) if selector.lacks else jobs.c.job_id.in_(labelled)
