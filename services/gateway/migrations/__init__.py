"""The schema's history; how to add to it says `services.common.db.migrate`, which runs it."""

from services.gateway import requests
from services.gateway.audit import tables as audit
from services.gateway.auth import tables as auth
from services.gateway.catalog import tables as catalog
from services.gateway.checkpoints import tables as checkpoints
from services.gateway.coordinators import tables as coordinators
from services.gateway.database import metadata
from services.gateway.hooks import tables as hooks
from services.gateway.jobs import files, labels
from services.gateway.jobs import tables as jobs

TABLES = (audit, auth, catalog, checkpoints, coordinators, files, hooks, jobs, labels, requests)
"""The modules that declare a table: only what has been imported is part of `metadata`."""

__all__ = ["TABLES", "metadata"]
