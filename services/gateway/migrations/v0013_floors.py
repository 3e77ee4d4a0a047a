"""What projects and templates want of all their jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for name in ("projects", "templates"):
        op.add_column(name, sa.Column("floor", sa.JSON, nullable=False, server_default="{}"))
