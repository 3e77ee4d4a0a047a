"""The schema's history; `services.common.db.migrate` runs it."""
