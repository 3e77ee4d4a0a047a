"""The table of the keys that seal what is secret in this database: all of them but the keys themselves."""

from typing import Any, Final

from sqlalchemy import Column, String, Table, Text

from services.common.db.columns import Moment
from services.gateway.schema.catalog import projects, providers, repositories, templates, work_items, workers
from services.gateway.schema.hooks import hooks
from services.gateway.schema.jobs import jobs
from services.gateway.schema.metadata import metadata

NEXT, CURRENT, OLD = "NEXT", "CURRENT", "OLD"
"""A key that not all cells have yet; the one that texts are sealed with; one that some texts are still sealed with."""

sealing_keys = Table(
    "sealing_keys",
    metadata,
    Column("key_id", String(63), primary_key=True),
    Column("state", String(15), nullable=False),
    Column("test_value", Text, nullable=False),  # sealed with it: whoever opens this has the key
    # The key itself, sealed with the one before, for the cells that have that one; empty when all have it.
    Column("handover", Text, nullable=False),
    Column("create_time", Moment, nullable=False),
)

SEALED: Final[tuple[Column[Any], ...]] = (
    repositories.c.token,
    providers.c["keys"],
    hooks.c.secret,
    *(table.c.secrets for table in (projects, templates, workers, work_items, jobs)),
)
"""All columns that hold something sealed."""
