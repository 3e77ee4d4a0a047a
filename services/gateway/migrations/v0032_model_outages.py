"""Jobs that wait for a provider of models, and the outages that they wait for."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("outage_provider", sa.Text, nullable=True))
    op.add_column("jobs", sa.Column("outage_since", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "model_outages",
        sa.Column("project_id", sa.String(63), primary_key=True),
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("next_time", sa.BigInteger, nullable=False),
    )
