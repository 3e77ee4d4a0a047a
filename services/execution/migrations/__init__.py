"""The schema's history; how to add to it says `services.common.db.migrate`, which runs it."""

from services.execution.service.store import metadata

__all__ = ["metadata"]
