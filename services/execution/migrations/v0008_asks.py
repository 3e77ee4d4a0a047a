"""Executions whose requests to models are granted by whoever started them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("executions", sa.Column("reserves_model_use", sa.Boolean, nullable=True))
