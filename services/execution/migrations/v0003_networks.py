"""The network of an execution. Executions of the version before have none recorded."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("executions", sa.Column("network", sa.String(16), nullable=True))
