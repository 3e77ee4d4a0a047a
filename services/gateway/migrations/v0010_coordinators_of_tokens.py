"""Which coordinator a token is."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("coordinator_id", sa.String(63), nullable=False, server_default=""))
