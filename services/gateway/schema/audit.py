"""The table of audit records. A column has the name of the field that it stores."""

from sqlalchemy import Column, Index, String, Table, Text

from services.common.db.columns import Moment
from services.gateway.schema.metadata import metadata

audit_records = Table(
    "audit_records",
    metadata,
    Column("record_id", String(63), primary_key=True),
    Column("time", Moment, nullable=False),
    Column("caller", String(255), nullable=False),
    Column("token_id", String(63), nullable=False),
    Column("role", String(16), nullable=False),
    Column("origin", String(255), nullable=False),
    Column("cell_id", String(63), nullable=False),
    Column("forwarded_by", String(63), nullable=False),
    Column("method", String(127), nullable=False),
    Column("resources", Text, nullable=False),  # each with a space before and after it, for LIKE
    Column("status", String(31), nullable=False),
    Column("reason", String(63), nullable=False),
    Column("request_id", String(128), nullable=False),
    Index("audit_records_newest", "time", "record_id"),
)
