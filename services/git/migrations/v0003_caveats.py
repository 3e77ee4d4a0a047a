"""In what a snapshot differs from its tree."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("snapshots", sa.Column("caveats", sa.Text, nullable=True))
