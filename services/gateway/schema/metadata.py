"""The gateway's tables, gathered: every store of the gateway declares its own on this."""

from typing import Final

from sqlalchemy import MetaData

metadata = MetaData()

MIGRATIONS: Final = "services.gateway.migrations"
"""What makes them."""
