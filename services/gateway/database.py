"""The gateway's tables, gathered: every store of the gateway declares its own on this."""

from sqlalchemy import MetaData

metadata = MetaData()
