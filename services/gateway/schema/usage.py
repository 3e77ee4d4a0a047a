"""The tables of what models were used for: they stay when the jobs are removed that used them.

model_usage   one row for each execution, provider, model and day
usage_labels  the labels of removed jobs; those of others are in job_labels
usage_totals  the sums of rows that change no more, for counters: also of those that were removed
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    String,
    Table,
    false,
)

from services.agent.usage import COUNTS
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sql import OptionalId

_MODEL_CHARACTERS = 200


def _sums() -> list[Column[object]]:
    """Return the columns of a Usage. One whose cost is not known has none: NULL, which is not 0."""
    counts = (Column(name, BigInteger, nullable=False) for name in COUNTS)
    return [*counts, Column("cost_usd", Float, nullable=True)]


model_usage = Table(
    "model_usage",
    metadata,
    Column("execution_id", String(63), primary_key=True),
    Column("provider", String(63), primary_key=True),
    Column("model", String(_MODEL_CHARACTERS), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("job_id", String(63), nullable=False),
    Column("project_id", String(63), nullable=False),
    Column("worker_id", OptionalId, nullable=True),
    Column("template_id", String(63), nullable=False),
    *_sums(),
    Column("is_counted", Boolean, nullable=False, server_default=false()),  # it is in usage_totals
)
Index("model_usage_days", model_usage.c.day, model_usage.c.project_id)
Index("model_usage_of_job", model_usage.c.job_id)
_UNCOUNTED = model_usage.c.is_counted.is_(False)
Index("model_usage_uncounted", model_usage.c.day, postgresql_where=_UNCOUNTED, sqlite_where=_UNCOUNTED)

usage_labels = Table(
    "usage_labels",
    metadata,
    Column("job_id", String(63), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(63), nullable=False),
)

usage_totals = Table(
    "usage_totals",
    metadata,
    Column("project_id", String(63), primary_key=True),
    Column("provider", String(63), primary_key=True),
    Column("model", String(_MODEL_CHARACTERS), primary_key=True),
    *_sums(),
)
