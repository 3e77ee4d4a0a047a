"""The metadata on which the modules of this package declare the gateway's tables."""

from typing import Final

from sqlalchemy import MetaData

metadata = MetaData()

MIGRATIONS: Final = "services.gateway.migrations"
"""The package that creates and changes them."""
