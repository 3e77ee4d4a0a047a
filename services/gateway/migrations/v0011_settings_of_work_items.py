"""Settings that a work item has for its jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    for name in ("agent", "policy"):
        op.add_column("work_items", sa.Column(name, sa.JSON, nullable=False, server_default="{}"))
