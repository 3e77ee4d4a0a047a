"""Where the HOME of a workspace's agents was taken over from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("home_workspace_id", sa.String(63), nullable=True))
