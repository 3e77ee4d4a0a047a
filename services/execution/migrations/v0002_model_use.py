"""What a model used and did."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("executions", sa.Column("tokens", sa.BigInteger))
    op.add_column("executions", sa.Column("cost_usd", sa.Float))
    op.add_column("executions", sa.Column("turns", sa.Integer))
    op.add_column("executions", sa.Column("tool_calls", sa.Integer))
    op.add_column("executions", sa.Column("last_words", sa.Text))
