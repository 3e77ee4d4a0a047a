"""The most that cells let jobs ask for, and what jobs have asked for; it is not known of earlier ones."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    for table in ("cells", "jobs"):
        op.add_column(table, sa.Column("limits", sa.Text, nullable=False, server_default=""))
