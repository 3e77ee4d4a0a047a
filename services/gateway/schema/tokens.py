"""The table of tokens. A column has the name of the field that it stores."""

from sqlalchemy import Column, Enum, Index, LargeBinary, String, Table

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata
from services.gateway.schema.sql import JsonValue
from services.gateway.values.principal import Role

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(63), primary_key=True),
    # SHA-256: nobody can try all values of 256 random bits, so a slow hash would only slow down the calls.
    Column("hash", LargeBinary, nullable=False),
    Column("name", String(255), nullable=False),
    Column("role", Enum(Role, native_enum=False, length=16), nullable=False),
    Column("projects", JsonValue(tuple[str, ...]), nullable=False),
    Column("creator", String(255), nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("expire_time", Moment, nullable=True),
    Column("revoke_time", Moment, nullable=True),
    Column("last_use_time", Moment, nullable=True),
    Column("coordinator_id", String(63), nullable=False, server_default=""),
    Index("tokens_by_hash", "hash", unique=True),
    Index("tokens_newest", "create_time", "token_id"),
)
