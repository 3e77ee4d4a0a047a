"""Agents by a preset: what they leave behind that is no result, and what they say that they used."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("executions", sa.Column("leave_out", sa.JSON, nullable=True))
    op.add_column("executions", sa.Column("claimed_tokens", sa.BigInteger, nullable=True))
    op.add_column("executions", sa.Column("claimed_cost_usd", sa.Float, nullable=True))
