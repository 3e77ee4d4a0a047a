"""When the work in a workspace ended."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("complete_time", sa.BigInteger, nullable=True))
    # A state of those that had been set was set once: until now nothing changed it but the removal.
    op.execute(sa.text("UPDATE workspaces SET complete_time = update_time WHERE state IN ('COMPLETED', 'ERROR')"))
