"""Things and fences."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("things", Column("id", String(63), primary_key=True), Column("size", Integer, nullable=False))
    op.create_table(
        "fences",
        Column("job_id", String(63), primary_key=True),
        Column("number", BigInteger, nullable=False),
        Column("seen_time", BigInteger, nullable=True),
    )
