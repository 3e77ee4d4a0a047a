"""The sessions of agents, in which the job's next agent may go on."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("executions", sa.Column("session_id", sa.String(128), nullable=True))
