"""Which jobs wait for the cell that they are bound to, because a person asked for what it has."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("waits_for_cell", sa.Boolean, nullable=False, server_default=sa.false()))
