"""The schema's history; how to add to it says `services.common.db.migrate`, which runs it."""

from services.gateway.schema import (
    audit,
    budgets,
    catalog,
    cells,
    checkpoints,
    events,
    hooks,
    idempotency,
    jobs,
    keys,
    tokens,
    totals,
)
from services.gateway.schema.metadata import metadata

TABLES = (audit, budgets, catalog, cells, checkpoints, events, hooks, idempotency, jobs, keys, tokens, totals)
"""The modules that declare a table: only what has been imported is part of `metadata`."""

__all__ = ["TABLES", "metadata"]
