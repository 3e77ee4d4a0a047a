"""What cells let jobs choose of tiers and networks, and what jobs have chosen; it is not known of earlier ones."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for name in ("allowed_tiers", "allowed_networks"):
        op.add_column("cells", sa.Column(name, sa.Text, nullable=True))
    for name in ("sandbox_tier", "network"):
        op.add_column("jobs", sa.Column(name, sa.String(31), nullable=False, server_default=""))
