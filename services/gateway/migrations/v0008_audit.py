"""The record of who did what."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    words = {"caller": 255, "token_id": 63, "role": 16, "origin": 255, "cell_id": 63, "forwarded_by": 63, "method": 127}
    op.create_table(
        "audit_records",
        sa.Column("record_id", sa.String(63), primary_key=True),
        sa.Column("time", sa.BigInteger, nullable=False),  # microseconds since 1970
        *(sa.Column(name, sa.String(length), nullable=False) for name, length in words.items()),
        sa.Column("resources", sa.Text, nullable=False),
        sa.Column("status", sa.String(31), nullable=False),
        sa.Column("reason", sa.String(63), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
    )
    op.create_index("audit_records_newest", "audit_records", ["time", "record_id"])
