"""Executions that an outage of their model has ended: of which provider, and until when, if it said so."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("executions", sa.Column("outage_provider", sa.Text, nullable=True))
    op.add_column("executions", sa.Column("outage_until", sa.BigInteger, nullable=True))
