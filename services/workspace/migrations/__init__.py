"""The schema's history. `services.common.db.migrate` runs it, and says how to add to it."""

from services.workspace.store import metadata

__all__ = ["metadata"]
