"""Until when results are kept, and when a fence was last seen."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "results",
        sa.Column("repository_id", sa.String(63), primary_key=True),
        sa.Column("result_id", sa.String(63), primary_key=True),
        sa.Column("tree", sa.LargeBinary, nullable=True),
        sa.Column("expire_time", sa.BigInteger, nullable=False, index=True),
    )
    op.add_column("fences", sa.Column("seen_time", sa.BigInteger, nullable=True))
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    op.execute(sa.text("UPDATE fences SET seen_time = :now").bindparams(now=now))
