"""What keeps cells from taking jobs, how long each one's leases are, and which cells have refused a job."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("cells", sa.Column("troubles", sa.Text, nullable=False, server_default=""))
    op.add_column("cells", sa.Column("lease_ms", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("refused_by", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("refused_since", sa.BigInteger, nullable=False, server_default="0"))
