"""Which agents cells know by name, and which of them jobs need of a machine."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.add_column("cells", sa.Column("agents", sa.Text, nullable=True))
    op.add_column("jobs", sa.Column("preset", sa.String(63), nullable=False, server_default=""))
