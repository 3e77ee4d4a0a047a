"""When a fence was last seen."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("fences", sa.Column("seen_time", sa.BigInteger, nullable=True))
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    op.execute(sa.text("UPDATE fences SET seen_time = :now").bindparams(now=now))
